// Real machines: every record of the corpus, planned.
//
// tests/support/corpus.h turns the records into documents; here each of them is loaded, planned in three ways and the
// plan handed to the judge. Nothing is compared with stored answers. What is asserted follows from the registers, which
// this file decodes by itself (a port of the corpus's tools/vtd_decode.py), or must hold of any plan: equal facts give
// equal bytes, strict coherency never takes fewer page tables, dirty tracking needs hardware that does it.
//
// The product's contract says that on 142 surveyed machines the order of attaching decides between one and two page
// tables. Here that is counted on the machines whose registers the corpus holds: the kernel's first fit in both orders,
// by the rules of Linux and again by the decode below, against ioplan. On the newest of them, in scalable mode with
// first-stage tables, Linux makes one table in both orders, and in one of the two the unit that cannot block no-snoop
// ends up behind a table that promises to.

#include "tests/support/corpus.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <string>

#include "constraints/kernel_law.h"
#include "engine/check/check.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/planner/planner.h"

namespace ioplan {
namespace {

using corpus::Ask;
using corpus::Machine;

class Corpus : public testing::Test {
 protected:
  void SetUp() override {
    if (!corpus::root()) GTEST_SKIP() << "no corpus: neither IOPLAN_CORPUS nor ../shared/corpus is there";
  }

  static const std::vector<Machine>& machines() {
    static const std::vector<Machine> all = corpus::read(*corpus::root());
    return all;
  }
};

Request request_of(const std::string& name, const std::string& text) {
  Result<Loaded> loaded = load_text(name, text);
  if (!loaded) {
    ADD_FAILURE() << to_text(loaded.error());
    return {};
  }
  return std::move(loaded->request);
}

Request request_of(const Machine& machine, Ask ask) {
  return request_of(machine.id + ".yaml", machine.host + corpus::vm_documents(machine, ask));
}

// --- VT-d registers, decoded once more ---

std::uint64_t field(std::uint64_t value, unsigned shift, unsigned width) {
  return value >> shift & ((std::uint64_t{1} << width) - 1);
}

struct FieldPlace {
  const char* name;
  bool in_ecap;
  unsigned shift, width;
};
// Specification 11.4.2 and 11.4.3; the fields that the corpus names in `unit_differences`.
constexpr FieldPlace kFields[] = {
    {"ND", false, 0, 3},      {"AFL", false, 3, 1},      {"RWBF", false, 4, 1},    {"PLMR", false, 5, 1},
    {"PHMR", false, 6, 1},    {"CM", false, 7, 1},       {"SAGAW", false, 8, 5},   {"MGAW", false, 16, 6},
    {"ZLR", false, 22, 1},    {"ISOCH", false, 23, 1},   {"FRO", false, 24, 10},   {"SLLPS", false, 34, 4},
    {"PSI", false, 39, 1},    {"NFR", false, 40, 8},     {"MAMV", false, 48, 6},   {"DWD", false, 54, 1},
    {"DRD", false, 55, 1},    {"FL1GP", false, 56, 1},   {"PI", false, 59, 1},     {"FL5LP", false, 60, 1},
    {"ECMDS", false, 61, 1},  {"ESIRTPS", false, 62, 1}, {"ESRTPS", false, 63, 1}, {"C", true, 0, 1},
    {"QI", true, 1, 1},       {"DT", true, 2, 1},        {"IR", true, 3, 1},       {"EIM", true, 4, 1},
    {"PT", true, 6, 1},       {"SC", true, 7, 1},        {"IRO", true, 8, 10},     {"MHMV", true, 20, 4},
    {"ECS", true, 24, 1},     {"MTS", true, 25, 1},      {"NEST", true, 26, 1},    {"DIS", true, 27, 1},
    {"PASID28", true, 28, 1}, {"PRS", true, 29, 1},      {"ERS", true, 30, 1},     {"SRS", true, 31, 1},
    {"NWFS", true, 33, 1},    {"EAFS", true, 34, 1},     {"PSS", true, 35, 5},     {"PASID", true, 40, 1},
    {"DIT", true, 41, 1},     {"PDS", true, 42, 1},      {"SMTS", true, 43, 1},    {"VCS", true, 44, 1},
    {"SLADS", true, 45, 1},   {"SLTS", true, 46, 1},     {"FLTS", true, 47, 1},    {"SMPWCS", true, 48, 1},
    {"RPS", true, 49, 1},     {"PMS", true, 51, 1},      {"ADMS", true, 52, 1},    {"RPRIVS", true, 53, 1},
};

std::uint64_t field_named(const corpus::VtdUnit& unit, const std::string& name) {
  for (const FieldPlace& f : kFields) {
    if (name == f.name) return field(f.in_ecap ? unit.ecap : unit.cap, f.shift, f.width);
  }
  ADD_FAILURE() << "the corpus names a field that this test does not know: " << name;
  return 0;
}

// A page table as the kernel would make it on a unit with default settings, and as another unit would judge it.
struct Table {
  unsigned stage = 0, levels = 0, bits = 0;
  std::uint64_t pages = 0;
  bool snoop = false, coherent_walk = false, sync_map = false;
};

struct Decoded {
  explicit Decoded(const corpus::VtdUnit& unit) : u(unit) {}
  const corpus::VtdUnit& u;

  bool is(const char* name) const { return field_named(u, name) != 0; }
  unsigned mgaw() const { return static_cast<unsigned>(field_named(u, "MGAW")) + 1; }
  std::uint64_t sagaw() const { return field_named(u, "SAGAW"); }
  bool scalable() const { return is("SMTS"); }
  bool dirty() const { return scalable() && is("SLADS") && is("SMPWCS"); }
  bool snooped_walk() const { return scalable() ? is("SMPWCS") : is("C"); }

  std::uint64_t first_stage_pages() const { return 0x201000U | (is("FL1GP") ? 0x40000000U : 0U); }
  std::uint64_t second_stage_pages() const {
    const std::uint64_t large = field_named(u, "SLLPS");
    return 0x1000U | ((large & 1) != 0 ? 0x200000U : 0U) | ((large & 2) != 0 ? 0x40000000U : 0U);
  }

  // Level bits of SAGAW: 2 is three levels, 4 four, 8 five.
  std::pair<unsigned, unsigned> second_stage_levels_and_bits() const {
    if (mgaw() > 48 && sagaw() >= 8) return {5, std::min(57U, mgaw())};
    if (mgaw() > 39 && sagaw() >= 4) return {(sagaw() & 8) != 0 ? 5 : 4, std::min(48U, mgaw())};
    if (mgaw() > 30 && sagaw() >= 2)
      return {(sagaw() & 4) != 0 ? 4 : (sagaw() & 8) != 0 ? 5 : 3, std::min(39U, mgaw())};
    return {0, 0};
  }

  Table allocate() const {
    if (scalable() && is("FLTS")) {
      const bool five = mgaw() > 48 && is("FL5LP");
      return {
          1,         five ? 5U : 4U, std::min(five ? 57U : 48U, mgaw()), first_stage_pages(), is("SC"), is("SMPWCS"),
          is("RWBF")};
    }
    const auto [levels, bits] = second_stage_levels_and_bits();
    return {2, levels, bits, second_stage_pages(), is("SC"), snooped_walk(), is("RWBF") || is("CM")};
  }

  // What Linux checks; `strict` adds what only the specification asks.
  bool accepts(const Table& t, bool strict) const {
    if (t.stage == 1) {
      if (!scalable() || !is("FLTS") || (t.coherent_walk && !is("SMPWCS")) || (t.levels == 5 && !is("FL5LP")))
        return false;
      if ((t.pages & ~first_stage_pages()) != 0 || (is("RWBF") && !t.sync_map)) return false;
      return !strict || ((!t.snoop || is("SC")) && t.bits <= mgaw());
    }
    if (scalable() && !is("SLTS")) return false;
    if (t.coherent_walk && !snooped_walk()) return false;
    if (t.bits > mgaw() || (sagaw() >> (t.levels - 2) & 1) == 0) return false;
    if ((t.pages & ~second_stage_pages()) != 0) return false;
    if ((is("RWBF") || is("CM")) && !t.sync_map) return false;
    return !t.snoop || is("SC");
  }
};

TEST_F(Corpus, FieldsDifferBetweenUnitsWhereTheCorpusSaysSo) {
  std::size_t compared = 0;
  for (const Machine& m : machines()) {
    for (const corpus::Difference& d : m.differences) {
      ASSERT_EQ(d.values.size(), m.vtd.size()) << m.id;
      for (std::size_t i = 0; i < m.vtd.size(); ++i, ++compared) {
        EXPECT_EQ(field_named(m.vtd[i], d.field), d.values[i]) << m.id << " " << m.vtd[i].id << " " << d.field;
      }
    }
  }
  EXPECT_GT(compared, 1000U);
}

TEST_F(Corpus, RegistersMeanWhatTheSpecificationSays) {
  std::size_t units = 0;
  for (const Machine& m : machines()) {
    if (m.vtd.empty()) continue;
    const Request request = request_of(m.id, corpus::one_device_per_unit(m));
    for (std::size_t i = 0; i < m.vtd.size(); ++i) {
      const corpus::VtdUnit& u = m.vtd[i];
      SCOPED_TRACE(m.id + " " + u.id);
      const auto device = request.host.find_device(corpus::synthetic_device(i));
      ASSERT_TRUE(device);
      const DeviceQuantities q = kernel_law().describe(request.host, *device);
      const Decoded own(u);
      const auto [levels, bits] = own.second_stage_levels_and_bits();
      EXPECT_EQ(q[DeviceQ::mgaw], own.mgaw());
      EXPECT_EQ(q[DeviceQ::walk_levels], own.sagaw());
      EXPECT_EQ(q[DeviceQ::scalable_mode] != 0, own.scalable());
      EXPECT_EQ(q[DeviceQ::snoop_control] != 0, own.is("SC"));
      EXPECT_EQ(q[DeviceQ::enforce_cache_coherency] != 0, own.is("SC"));
      EXPECT_EQ(q[DeviceQ::dirty_capable] != 0, own.dirty());
      EXPECT_EQ(q[DeviceQ::nested] != 0, own.scalable() && own.is("NEST"));
      EXPECT_EQ(q[DeviceQ::stage1] != 0, own.scalable() && own.is("FLTS"));
      EXPECT_EQ(q[DeviceQ::first_stage_pages], own.first_stage_pages());
      EXPECT_EQ(q[DeviceQ::second_stage_pages], own.second_stage_pages());
      EXPECT_EQ(q[DeviceQ::stage2_levels], levels);
      EXPECT_EQ(q[DeviceQ::stage2_bits], bits);
      EXPECT_EQ(q[DeviceQ::stage2_coherent_walk] != 0, own.snooped_walk());
      ++units;
    }
  }
  EXPECT_GE(units, 250U);
}

// --- every machine, three questions ---

struct Tally {
  std::array<std::size_t, 3> verdicts{};
  std::map<std::size_t, std::size_t> hwpts;  // number of HWPTs -> machines
  std::size_t most_devices = 0;
};

std::string hwpt_counts(const Tally& tally) {
  std::string out;
  for (const auto& [count, hosts] : tally.hwpts) out += fmt::format("{}{}x{}", out.empty() ? "" : " ", hosts, count);
  return out;
}

void print(const std::map<std::string, Tally>& tallies) {
  fmt::print("{:<36}{:>6}{:>10}{:>12}{:>11}  {}\n", "file / question", "hosts", "feasible", "infeasible", "undecided",
             "hosts x HWPTs");
  for (const auto& [name, t] : tallies) {
    const auto [yes, no, open] = t.verdicts;
    fmt::print("{:<36}{:>6}{:>10}{:>12}{:>11}  {}\n", name, yes + no + open, yes, no, open, hwpt_counts(t));
  }
}

std::string file_of(const Machine& m) { return m.record.substr(0, m.record.find(':')); }

void expect_sound(const Machine& m, Ask ask, const Request& request, const Plan& plan) {
  SCOPED_TRACE(fmt::format("{} {}", m.record, corpus::kAskNames[static_cast<std::size_t>(ask)]));
  const Judgement judgement = check_plan(plan, request, kernel_law());
  for (const Objection& o : judgement.objections) ADD_FAILURE() << o.obligation << ": " << o.text;
  switch (plan.verdict) {
    case Verdict::feasible:
      EXPECT_FALSE(plan.hwpts.empty());
      EXPECT_EQ(plan.optimality.hwpts, plan.optimality.lower_bound);
      break;
    case Verdict::infeasible:
      EXPECT_FALSE(plan.conflict.empty());
      break;
    case Verdict::undecided:
      EXPECT_FALSE(plan.unknown.empty());
      break;
  }
}

// The units that stand before the VM's devices, where all of them are known.
std::optional<std::vector<corpus::VtdUnit>> units_of_vm(const Machine& m, const Request& request) {
  std::set<std::string> used;
  for (const AssignedDevice& a : request.vms.front().devices) {
    const Device& d = request.host.device(*a.host);
    if (!d.unit) return std::nullopt;
    used.insert(request.host.unit(*d.unit).id);
  }
  std::vector<corpus::VtdUnit> units;
  for (const corpus::VtdUnit& u : m.vtd) {
    if (used.contains(u.id)) units.push_back(u);
  }
  return units.size() == used.size() ? std::optional(units) : std::nullopt;
}

// What the registers alone say about the three answers of an Intel machine.
void expect_intel_answers(const Machine& m, const Request& request, const std::array<Plan, 3>& plans) {
  const auto units = units_of_vm(m, request);
  if (!units || units->empty()) return;
  SCOPED_TRACE(m.record);
  const auto count = [&](const char* name) {
    return std::ranges::count_if(*units, [&](const auto& u) { return Decoded(u).is(name); });
  };
  const auto all = static_cast<std::ptrdiff_t>(units->size());
  const bool all_dirty = std::ranges::all_of(*units, [](const auto& u) { return Decoded(u).dirty(); });
  const auto& [plain, dirty, strict] = plans;
  EXPECT_EQ(plain.verdict, Verdict::feasible);
  EXPECT_EQ(dirty.verdict == Verdict::feasible, all_dirty);
  EXPECT_EQ(plain.kvm.noncoherent_dma, count("SC") != all);
  if (strict.verdict == Verdict::feasible) {
    EXPECT_GE(strict.hwpts.size(), plain.hwpts.size());
    EXPECT_GE(strict.hwpts.size(), count("SC") != all && count("SC") != 0 ? 2U : 1U);
  }
}

TEST_F(Corpus, EveryMachineGetsAnAnswerThatTheJudgeAccepts) {
  std::map<std::string, Tally> tallies;
  std::map<std::string, std::pair<std::string, std::string>> answer_of_facts;  // fingerprint + devices -> host, answer
  std::size_t twins = 0;
  std::pair<double, std::string> slowest;
  for (const Machine& m : machines()) {
    std::array<Plan, 3> plans;
    for (Ask ask : {Ask::plain, Ask::dirty_tracking, Ask::strict}) {
      const auto which = static_cast<std::size_t>(ask);
      const Request request = request_of(m, ask);
      const auto before = std::chrono::steady_clock::now();
      Plan& plan = plans[which] = make_plan(request, kernel_law());
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - before;
      slowest = std::max(slowest, {took.count(), fmt::format("{} {}", m.id, corpus::kAskNames[which])});
      expect_sound(m, ask, request, plan);
      for (const std::string& name : {file_of(m), std::string("all")}) {
        Tally& tally = tallies[fmt::format("{} {}", name, corpus::kAskNames[which])];
        ++tally.verdicts[static_cast<std::size_t>(plan.verdict)];
        if (plan.verdict == Verdict::feasible) ++tally.hwpts[plan.hwpts.size()];
      }
      // Equal facts, equal question: equal bytes.
      std::string key = fmt::format("{} {} {}", plan.fingerprint, m.vendor, which);
      for (const std::string& id : m.passthrough) key += " " + id;
      const auto [twin, is_new] = answer_of_facts.try_emplace(key, m.id, to_json(plan));
      if (is_new) continue;
      ++twins;
      EXPECT_EQ(twin->second.second, to_json(plan)) << m.id << " and " << twin->second.first;
    }
    if (file_of(m) == "intel.yaml") expect_intel_answers(m, request_of(m, Ask::plain), plans);
    if (file_of(m) == "amd.yaml" && m.host.find("efr2:") != std::string::npos) {
      EXPECT_EQ(plans[0].verdict, Verdict::feasible) << m.id;
      EXPECT_EQ(plans[0].hwpts.size(), 1U) << m.id;
      EXPECT_FALSE(plans[0].kvm.noncoherent_dma) << m.id;
    }
    if (file_of(m) == "acpi_dmar.yaml") {
      EXPECT_NE(plans[0].verdict, Verdict::feasible) << "registers are unknown: " << m.id;
    }
  }
  print(tallies);
  fmt::print("{} records answered alike because their facts are equal; slowest {:.3f} s ({})\n", twins, slowest.first,
             slowest.second);
  const Tally& plain = tallies["all plain"];
  EXPECT_EQ(plain.verdicts[0] + plain.verdicts[1] + plain.verdicts[2], machines().size());
  EXPECT_GE(machines().size(), 115U + 51U + 36U + 175U + 79U + 16U + 5U);
  EXPECT_GT(twins, 100U);
}

// --- the order of attaching ---

// Linux as it is: the rules without the ones that only ioplan adds.
bool linux_attaches(const HwptQuantities& hwpt, const DeviceQuantities& device) {
  const Values values{.hwpt = &hwpt, .device = &device, .vm = nullptr};
  return std::ranges::all_of(kernel_law().rules(), [&](const Rule* rule) {
    return rule->phase != Phase::attach || rule->strict || holds(*rule, values);
  });
}

// iommufd's automatic attach: the oldest HWPT that takes the device, else a new one for it.
std::size_t first_fit_by_rules(const Host& host, const std::vector<DeviceIndex>& order) {
  std::vector<HwptQuantities> hwpts;
  for (DeviceIndex index : order) {
    const DeviceQuantities device = kernel_law().describe(host, index);
    if (std::ranges::none_of(hwpts, [&](const auto& h) { return linux_attaches(h, device); })) {
      hwpts.push_back(kernel_law().allocate(device, 0));
    }
  }
  return hwpts.size();
}

std::size_t first_fit_by_registers(const std::vector<corpus::VtdUnit>& order, bool strict) {
  std::vector<Table> tables;
  for (const corpus::VtdUnit& u : order) {
    const Decoded unit(u);
    if (std::ranges::none_of(tables, [&](const Table& t) { return unit.accepts(t, strict); })) {
      tables.push_back(unit.allocate());
    }
  }
  return tables.size();
}

// The same first fit with an eye on what the kernel does not check: tables that the specification forbids to share.
struct OrderOutcome {
  std::size_t tables = 0;       // as Linux attaches
  std::size_t safe_tables = 0;  // had it checked
};

OrderOutcome attach_in_order(const Host& host, const std::vector<corpus::VtdUnit>& units) {
  std::vector<DeviceIndex> order;
  for (const corpus::VtdUnit& u : units) {
    const UnitIndex unit = *host.find_unit(u.id);
    const auto behind = std::ranges::find(host.devices, std::optional(unit), &Device::unit);
    order.push_back(*host.find_device(behind->id));
  }
  const std::size_t tables = first_fit_by_rules(host, order);
  EXPECT_EQ(tables, first_fit_by_registers(units, false));
  return {tables, first_fit_by_registers(units, true)};
}

struct OrderCount {
  std::size_t hosts = 0, snoop_control_differs = 0, one_or_two = 0, unsafe = 0;
};

OrderCount count_orders(const Machine& m) {
  const Request request = request_of(m.id, corpus::one_device_per_unit(m));
  std::vector<corpus::VtdUnit> units = m.vtd;
  const OrderOutcome forward = attach_in_order(request.host, units);
  std::ranges::reverse(units);
  const OrderOutcome backward = attach_in_order(request.host, units);

  const Plan plan = make_plan(request, kernel_law());
  EXPECT_EQ(plan.verdict, Verdict::feasible);
  EXPECT_EQ(plan.hwpts.size(), 1U);
  const bool differs =
      std::ranges::any_of(units, [&](const auto& u) { return Decoded(u).is("SC") != Decoded(units.front()).is("SC"); });
  const bool one_or_two =
      std::min(forward.tables, backward.tables) == 1 && std::max(forward.tables, backward.tables) == 2;
  const bool unsafe = forward.tables < forward.safe_tables || backward.tables < backward.safe_tables;
  return {1, differs ? 1U : 0U, one_or_two ? 1U : 0U, unsafe ? 1U : 0U};
}

TEST_F(Corpus, OneTableIsEnoughWhereTheOrderOfAttachingDecides) {
  std::map<std::string, OrderCount> counts;
  for (const Machine& m : machines()) {
    if (m.vtd.size() < 2) continue;
    SCOPED_TRACE(m.record);
    const OrderCount one = count_orders(m);
    // No other difference between the units of one host matters to the tables that Linux makes by itself.
    EXPECT_EQ(one.snoop_control_differs, one.one_or_two + one.unsafe);
    OrderCount& sum = counts[m.segment];
    sum.hosts += one.hosts;
    sum.snoop_control_differs += one.snoop_control_differs;
    sum.one_or_two += one.one_or_two;
    sum.unsafe += one.unsafe;
  }
  fmt::print("{:<16}{:>7}{:>13}{:>16}{:>21}\n", "machines", "hosts", "SC differs", "1 or 2 tables",
             "1, unsafe one way");
  for (const auto& [segment, c] : counts) {
    fmt::print("{:<16}{:>7}{:>13}{:>16}{:>21}\n", segment, c.hosts, c.snoop_control_differs, c.one_or_two, c.unsafe);
  }
  const OrderCount& clients = counts["client"];
  EXPECT_GE(clients.hosts, 80U);
  EXPECT_GE(clients.one_or_two, clients.hosts * 8 / 10);
  EXPECT_GT(clients.unsafe, 0U);  // scalable mode with first-stage tables, where Linux does not look at SC
  EXPECT_LE(counts["server_or_hedt"].one_or_two, 8U);
}

}  // namespace
}  // namespace ioplan

// Plans carried out on the simulator: every example and thousands of random ones stand as predicted; whatever fails on
// the way, the world is as it was; and plans that the judge rejects for what the world can show do not stand.
//
// IOPLAN_SCALE multiplies the random runs (10 is the soak run), IOPLAN_SEED runs one seed only.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "backends/sim/machine.h"
#include "backends/sim/sim_backend.h"
#include "constraints/catalog.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/check/check.h"
#include "engine/document/load.h"
#include "engine/planner/planner.h"
#include "tests/support/generator.h"
#include "tests/support/mutants.h"
#include "tests/support/paths.h"
#include "tests/support/replay.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20, kGiB = std::uint64_t{1} << 30;

struct Case {
  std::string name;
  Request request;
  Plan plan;
};

// ------------------------------------------------------------------------------------------------- questions

// Every example that has a plan: the host with each VM, alone and under each policy.
std::vector<Case> examples() {
  std::vector<Case> cases;
  for (const auto& folder : fs::directory_iterator(source_folder() / "examples")) {
    if (!folder.is_directory()) continue;
    std::vector<std::string> vms, policies = {""};
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string file = entry.path().filename().string();
      if (!file.ends_with(".yaml") || file == "host.yaml") continue;
      (file.starts_with("vm") ? vms : policies).push_back(entry.path().string());
    }
    for (const std::string& vm : vms) {
      for (const std::string& policy : policies) {
        std::vector<std::string> files = {(folder.path() / "host.yaml").string(), vm};
        if (!policy.empty()) files.push_back(policy);
        const auto loaded = load(files);
        if (!loaded) continue;  // vm.yaml may hold a policy already
        Plan plan = make_plan(loaded->request, kernel_law());
        if (plan.verdict != Verdict::feasible) continue;
        cases.push_back({fmt::format("{} {}", vm, policy), loaded->request, std::move(plan)});
      }
    }
  }
  std::ranges::sort(cases, {}, &Case::name);
  return cases;
}

// What an application costs is bounded: pages of the backing to be pinned, tables to be written. And no machine has RAM
// that an SMMU's output addresses (36 bits at least, of those asked) do not reach.
bool small(const Plan& plan, std::uint64_t pages, std::uint64_t table_bytes) {
  constexpr std::uint64_t kReach = 32 * kGiB;
  std::uint64_t backing_pages = 0;
  for (const PlannedIoas& i : plan.ioas) {
    for (const MemoryRange& m : i.memory) backing_pages += m.gpa.extent() / i.backing + 1;
  }
  const bool arm = std::ranges::count(plan.hwpts, PageTableFormat::arm_lpae, &PlannedHwpt::format) > 0;
  if (arm && plan.resources.pinned_bytes > kReach) return false;
  return backing_pages <= pages && plan.resources.page_table_bytes <= table_bytes;
}

// The same VM with less memory, or larger pages under it.
Request shrunk(Request request, std::uint64_t size) {
  for (VirtualMachine& vm : request.vms) {
    if (vm.memory.size) vm.memory.size = std::min(*vm.memory.size, size + *vm.memory.size % kMiB);
    for (MemoryRange& m : vm.memory.ranges) m.gpa.last = m.gpa.start + std::min(m.gpa.extent(), size - 1);
  }
  return request;
}

// A random question with a plan that is quick to apply; nothing when there is none.
std::optional<Case> random_case(std::uint64_t seed, std::uint64_t pages, std::uint64_t table_bytes) {
  generator::GeneratorOptions options;
  options.absent = 0;
  Request request = generator::random_request(seed, options);
  for (const std::uint64_t size : {~std::uint64_t{0}, 3 * kGiB, 256 * kMiB, 16 * kMiB}) {
    if (size != ~std::uint64_t{0}) request = shrunk(std::move(request), size);
    Plan plan = make_plan(request, kernel_law());
    if (plan.verdict != Verdict::feasible) return std::nullopt;
    if (small(plan, pages, table_bytes)) return Case{fmt::format("seed {}", seed), std::move(request), std::move(plan)};
  }
  return std::nullopt;
}

template <class Use>
void for_random_cases(std::size_t wanted, std::uint64_t pages, std::uint64_t table_bytes, Use use) {
  if (std::getenv("IOPLAN_SEED") != nullptr) {
    if (auto c = random_case(static_cast<std::uint64_t>(number_from("IOPLAN_SEED", 0)), pages, table_bytes)) use(*c);
    return;
  }
  std::size_t failures = 0;
  for (std::uint64_t seed = 0, found = 0; found < wanted && failures < 5; ++seed) {
    const auto c = random_case(seed, pages, table_bytes);
    if (!c) continue;
    ++found;
    SCOPED_TRACE(c->name);
    use(*c);
    if (::testing::Test::HasFailure() && ++failures == 1)
      std::printf("%s", generator::to_documents(c->request).c_str());
  }
}

std::size_t scaled(double runs) {
  return static_cast<std::size_t>(std::max(1.0, runs * number_from("IOPLAN_SCALE", 1)));
}

std::unique_ptr<sim::Machine> machine_of(const Host& host) {
  auto machine = sim::Machine::create(host, kernel_law());
  EXPECT_TRUE(machine) << to_text(machine.error());
  return machine ? std::move(*machine) : nullptr;
}

std::string text_of(const ApplyReport& report) {
  std::string text = report.error ? report.error->message : "no error";
  for (const Difference& d : report.differences) {
    text += fmt::format("\n  {}.{}: predicted {}, observed {}", d.subject, d.attribute, d.predicted, d.observed);
  }
  for (const std::string& r : report.remains) text += "\n  remains: " + r;
  return text;
}

// ------------------------------------------------------------------------------------------------- plans stand

// What was applied, so that the comparison keeps meaning something.
struct Mix {
  std::map<std::string, std::size_t> count;

  void add(const Plan& plan) {
    ++count["plans"];
    if (plan.ioas.size() > 1) ++count["several VMs"];
    for (const PlannedIoas& i : plan.ioas) {
      if (i.memory.size() > 2) ++count["more than two ranges"];
      for (const MemoryRange& m : i.memory) count["read-only ranges"] += m.access == Access::read_only;
    }
    for (const PlannedHwpt& h : plan.hwpts) {
      ++count[std::string(kPageTableFormatNames[static_cast<std::size_t>(h.format)]) +
              fmt::format(" stage {}", h.stage)];
      for (std::size_t f = 0; f < kHwptFlagNames.size(); ++f) count[std::string(kHwptFlagNames[f])] += h.flags >> f & 1;
      count["blocks no-snoop"] += h.enforce_cache_coherency;
      count["automatic"] += h.automatic;
      count["several devices"] += h.devices.size() > 1;
    }
    for (const Step& s : plan.steps) count["mediated devices"] += s.kind == StepKind::attach_ioas && s.hwpt.empty();
  }

  void print() const {
    std::printf("applied:");
    for (const auto& [what, n] : count) std::printf(" %zu %s;", n, what.c_str());
    std::printf("\n");
  }
};

// Applies, compares, closes; afterwards the machine is as new.
void expect_stands(const Case& c, const ApplyOptions& options = {}) {
  const auto machine = machine_of(c.request.host);
  if (!machine) return;
  const std::string fresh = machine->world();
  {
    sim::SimBackend backend(*machine);
    const ApplyReport report = apply_plan(c.plan, c.request.host, backend, options);
    EXPECT_EQ(report.outcome, ApplyOutcome::done) << c.name << ": " << text_of(report);
  }
  EXPECT_EQ(machine->world(), fresh) << c.name;
}

TEST(ApplySim, EveryExampleStands) {
  const std::vector<Case> cases = examples();
  EXPECT_GE(cases.size(), 12U);
  for (const Case& c : cases) expect_stands(c);
}

TEST(ApplySim, RandomPlansStand) {
  Mix mix;
  for_random_cases(scaled(500), 1 << 17, 2 * kMiB, [&](const Case& c) {
    mix.add(c.plan);
    ApplyOptions options;
    if (mix.count["plans"] % 3 == 0) options.piece = kGiB;
    expect_stands(c, options);
  });
  mix.print();
  if (mix.count["plans"] < 500) return;
  for (const char* what :
       {"vtd-ss stage 2", "x86-64 stage 1", "amdv1 stage 2", "arm-lpae stage 1", "arm-lpae stage 2", "virtio stage 1",
        "s390 stage 1", "mock stage 2", "several VMs", "mediated devices", "automatic", "read-only ranges",
        "dirty-tracking", "nest-parent", "pasid", "blocks no-snoop", "several devices"}) {
    EXPECT_GE(mix.count[what], 5U) << what;
  }
}

// ------------------------------------------------------------------------------------------------- failures

// Fails every operation that can fail, one application each. How many there are.
std::size_t sweep(const Case& c) {
  const auto machine = machine_of(c.request.host);
  if (!machine) return 0;
  sim::SimBackend backend(*machine);
  const std::string before = machine->world();
  for (std::size_t k = 1;; ++k) {
    machine->fail_nth(k);
    const ApplyReport report = apply_plan(c.plan, c.request.host, backend);
    if (!machine->injected()) {
      EXPECT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
      return k - 1;
    }
    EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back) << c.name << ", operation " << k << ": " << text_of(report);
    EXPECT_TRUE(report.error && report.error->errno_value == ENOMEM)
        << c.name << ", operation " << k << ": " << text_of(report);
    EXPECT_EQ(machine->world(), before) << c.name << ", operation " << k << ": " << text_of(report);
    if (::testing::Test::HasFailure()) return k;
  }
}

TEST(ApplySim, AnyFailureOfAnExampleLeavesTheWorldAsBefore) {
  std::size_t operations = 0;
  for (const Case& c : examples()) operations += sweep(c);
  std::printf("%zu operations of the examples failed\n", operations);
}

TEST(ApplySim, AnyFailureOfARandomPlanLeavesTheWorldAsBefore) {
  std::size_t operations = 0, plans = 0;
  for_random_cases(scaled(100), 1 << 13, kMiB / 4, [&](const Case& c) {
    operations += sweep(c);
    ++plans;
  });
  std::printf("%zu operations of %zu random plans failed\n", operations, plans);
}

// Not one operation, but a whole resource: memory for tables runs out, or what may be locked.
TEST(ApplySim, ScarceMemoryLeavesTheWorldAsBefore) {
  sim::MachineOptions few_tables, little_locked;
  few_tables.table_memory = 32 * 1024;
  little_locked.memlock_limit = 64 * kMiB;
  for (const auto& [what, options] : {std::pair{"tables", few_tables}, std::pair{"memlock", little_locked}}) {
    std::size_t refused = 0;
    for (const Case& c : examples()) {
      SCOPED_TRACE(fmt::format("{} of {}", what, c.name));
      auto machine = sim::Machine::create(c.request.host, kernel_law(), options);
      ASSERT_TRUE(machine) << to_text(machine.error());
      sim::SimBackend backend(**machine);
      const std::string before = (*machine)->world();
      const ApplyReport report = apply_plan(c.plan, c.request.host, backend);
      if (report.outcome == ApplyOutcome::done) continue;
      ++refused;
      EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back) << text_of(report);
      EXPECT_EQ(report.error->errno_value, ENOMEM) << text_of(report);
      EXPECT_EQ((*machine)->world(), before);
    }
    EXPECT_GE(refused, 10U) << what;
  }
}

// ------------------------------------------------------------------------------------------------- wrong plans

// What a plan owes for which the world gives evidence: a plan that the judge rejects for one of these does not stand.
const std::set<std::string_view> kShown = {
    obligation::fingerprint, obligation::placement,  obligation::groups, obligation::attributes, obligation::acceptance,
    obligation::usable,      obligation::domain_ids, obligation::ioas,   obligation::resources,  obligation::steps};

// Faults in what a plan says that carrying it out cannot show.
const std::map<std::string_view, std::string_view> kNotShown = {
    {"ioas of no vm", "the kernel knows no VMs"},
    {"ioas swapped", "the kernel knows no VMs"},
    {"backing doubled", "memory may have larger pages than the tables use"},
    {"memory access", "the kernel tells nobody what it has mapped read-only"},
    {"step access", "the kernel tells nobody what it has mapped read-only"},
    {"memory extended", "into the next range, where they touch"},
    {"reserved dropped", "regions show only in what stays usable"},
    {"reserved extended", "regions show only in what stays usable"},
    {"reserved invented", "regions show only in what stays usable"},
    {"reserved shifted", "regions show only in what stays usable"},
    {"reserved shrunk", "regions show only in what stays usable"},
    {"reserved starts later", "regions show only in what stays usable"},
    {"reserved type", "regions show only in what stays usable"},
    {"allowed dropped", "a map at a fixed address asks for no allowance"},
    {"allowed shrunk", "a map at a fixed address asks for no allowance"},
    {"step doubled: allow-iovas", "allowing twice is allowing"},
    {"step dropped: allow-iovas", "a map at a fixed address asks for no allowance"},
    {"step dropped: attach-ioas", "a mediated device shows only where it raises the alignment"},
};

// The strict rules are those that Linux should check and does not; others are the operator's or the VM's, not Linux's;
// and what Linux asks of PASIDs comes up when the guest uses one, which no step does.
bool met_by_steps(const Objection& o) {
  const std::size_t start = o.text.find("(rule `"), end = o.text.rfind("`)");
  if (start == std::string::npos || end == std::string::npos) return true;
  const Rule* rule = find_rule(o.text.substr(start + 7, end - start - 7));
  if (rule == nullptr) return true;
  return !rule->strict && rule->errno_value != 0 && !rule->name.starts_with("usable.pasid-");
}

bool must_fail(const mutants::Mutant& m, const Plan& truth, const std::vector<Objection>& objections) {
  if (kNotShown.contains(m.name)) return false;
  if (m.plan.resources.memlock_bytes != truth.resources.memlock_bytes)
    return false;  // libvirt's figure, not the kernel's
  return std::ranges::any_of(objections,
                             [](const Objection& o) { return kShown.contains(o.obligation) && met_by_steps(o); });
}

// Linux pins whole pages of its own, and a plan counts the bytes that are mapped (engine/README.md 12): they differ
// where ranges end within a page of the kernel.
bool in_whole_pages(const Case& c) {
  const std::uint64_t page = c.request.host.kernel.facts[KernelFact::page_size].value_or(4096);
  const auto whole = [&](const MemoryRange& m) { return m.gpa.start % page == 0 && (m.gpa.last + 1) % page == 0; };
  return std::ranges::all_of(c.plan.ioas, [&](const PlannedIoas& i) { return std::ranges::all_of(i.memory, whole); });
}

// AMD's domain ids, and the ids of SMMUv3's stage 1, are the machine's. Units that state different numbers used of them
// do not exist; the planner believes the worst of them, the simulator the one that allocates.
bool contradicts_itself(const Host& host) {
  std::map<Driver, std::set<std::uint64_t>> used;
  for (const Unit& u : host.units) used[u.driver].insert(u.facts.value_or_stock(UnitFact::domains_used));
  return used[Driver::amd].size() > 1 || used[Driver::smmuv3].size() > 1;
}

struct Tally {
  std::size_t rejected = 0, failed = 0;
};

class WrongPlans {
 public:
  void doubt(const Case& c) {
    const auto machine = machine_of(c.request.host);
    if (!machine) return;
    const replay::Replay replay(c.request, kernel_law(), c.plan);
    for (const auto& m : mutants::mutants_of(c.plan, c.request, [&](Plan p) { return replay.derived(std::move(p)); })) {
      SCOPED_TRACE(m.name);
      compare(m, c, *machine);
    }
  }

  // The same decisions on a host or for a VM that has changed, with all that follows from them derived anew.
  void doubt_elsewhere(const Case& c) {
    for (const mutants::StricterRequest& changed : mutants::stricter_requests(c.request, c.plan)) {
      SCOPED_TRACE(changed.name);
      const Plan truth = make_plan(changed.request, kernel_law());
      if (truth.verdict == Verdict::undecided) continue;
      const replay::Replay replay(changed.request, kernel_law(), truth);
      Plan stale = c.plan;
      stale.fingerprint = fingerprint(changed.request.host);
      stale.assumptions = truth.assumptions;
      const auto machine = machine_of(changed.request.host);
      if (!machine) return;
      const Case elsewhere{c.name, changed.request, replay.derived(stale)};
      if (!in_whole_pages(elsewhere) || contradicts_itself(changed.request.host)) continue;
      compare({changed.name, elsewhere.plan}, elsewhere, *machine);
    }
  }

  void print() const {
    std::printf("%zu wrong plans, and %zu that the judge accepts after all, and they stand\n", changed_ - right_,
                right_);
    for (const Obligation& o : kObligations) {
      const auto it = by_obligation_.find(o.name);
      if (it == by_obligation_.end()) continue;
      std::printf("  %-12s rejected %6zu, did not stand %6zu%s\n", std::string(o.name).c_str(), it->second.rejected,
                  it->second.failed, kShown.contains(o.name) ? "  (the world shows it)" : "");
    }
  }

  const Tally& tally(std::string_view obligation) { return by_obligation_[std::string(obligation)]; }

 private:
  void compare(const mutants::Mutant& m, const Case& c, sim::Machine& machine) {
    const std::vector<Objection> objections = check_plan(m.plan, c.request, kernel_law()).objections;
    const ApplyReport report = apply(m.plan, c.request.host, machine);
    const bool failed = report.outcome != ApplyOutcome::done;
    ++changed_;
    right_ += objections.empty();
    std::set<std::string> names;
    for (const Objection& o : objections) names.insert(o.obligation);
    for (const std::string& name : names) {
      ++by_obligation_[name].rejected;
      by_obligation_[name].failed += failed;
    }
    if (objections.empty()) {
      EXPECT_FALSE(failed) << "the judge accepts it: " << text_of(report);
    }
    if (must_fail(m, c.plan, objections)) {
      EXPECT_TRUE(failed) << "the judge objects (" << objections.front().obligation << "): " << objections.front().text;
    }
  }

  // The world is as before whenever the plan does not stand, and always when the context is closed.
  static ApplyReport apply(const Plan& plan, const Host& host, sim::Machine& machine) {
    const std::string fresh = machine.world();
    ApplyReport report;
    {
      sim::SimBackend backend(machine);
      const std::string before = machine.world();
      report = apply_plan(plan, host, backend);
      EXPECT_NE(report.outcome, ApplyOutcome::incomplete) << text_of(report);
      if (report.outcome != ApplyOutcome::done) {
        EXPECT_EQ(machine.world(), before) << text_of(report);
      }
    }
    EXPECT_EQ(machine.world(), fresh);
    return report;
  }

  std::size_t changed_ = 0, right_ = 0;
  std::map<std::string, Tally, std::less<>> by_obligation_;
};

TEST(ApplySim, WrongPlansFailWhereTheWorldShowsIt) {
  WrongPlans wrong;
  for_random_cases(scaled(60), 1 << 12, kMiB / 4, [&](const Case& c) { wrong.doubt(c); });
  for_random_cases(scaled(20), 1 << 12, kMiB / 4, [&](const Case& c) { wrong.doubt_elsewhere(c); });
  wrong.print();
  if (scaled(60) < 60) return;
  for (const std::string_view name : kShown) EXPECT_GE(wrong.tally(name).failed, 20U) << name;
}

}  // namespace
}  // namespace ioplan

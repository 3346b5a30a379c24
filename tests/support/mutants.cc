#include "tests/support/mutants.h"

#include <algorithm>
#include <bit>

namespace ioplan::mutants {

namespace {

class Maker {
 public:
  Maker(const Plan& plan, const Request& request, const std::function<Plan(Plan)>& derive)
      : plan_(plan), request_(request), derive_(derive) {}

  std::vector<Mutant> make() {
    identity();
    for (std::size_t i = 0; i < plan_.hwpts.size(); ++i) hwpt(i);
    for (std::size_t i = 0; i < plan_.ioas.size(); ++i) ioas(i);
    decisions();
    numbers();
    proof();
    kvm();
    lifecycle();
    assumptions();
    steps();
    verdict();
    return std::move(mutants_);
  }

 private:
  template <class Change>
  void add(std::string name, Change change) {
    Plan mutant = plan_;
    change(mutant);
    mutants_.push_back({std::move(name), std::move(mutant)});
  }

  // Both as it is and with all that follows from it.
  template <class Change>
  void add_decision(const std::string& name, Change change) {
    add(name, change);
    Plan mutant = plan_;
    change(mutant);
    mutants_.push_back({name + ", derived", derive_(std::move(mutant))});
  }

  void lifecycle() {
    for (std::size_t f = 0; f < plan_.frozen.size(); ++f) {
      add("frozen value", [f](Plan& p) { p.frozen[f].value += "1"; });
      add("frozen dropped", [f](Plan& p) { p.frozen.erase(p.frozen.begin() + static_cast<std::ptrdiff_t>(f)); });
      add("frozen doubled", [f](Plan& p) { p.frozen.push_back(p.frozen[f]); });
    }
    for (const Device& d : request_.host.devices) {
      if (plan_.hwpts.empty()) return;
      const std::string vm = vm_of(plan_.hwpts.front().ioas);
      add("promise invented", [&](Plan& p) { p.promises.push_back({vm, d.id, p.hwpts.front().id, {}}); });
    }
  }

  void identity() {
    add("fingerprint changed", [](Plan& p) { p.fingerprint = "00000000-0000-0000-0000-000000000000"; });
    add("fingerprint dropped", [](Plan& p) { p.fingerprint.clear(); });
    add("vm dropped", [](Plan& p) { p.vms.pop_back(); });
    add("vm renamed", [](Plan& p) { p.vms.back() += "x"; });
    add("vm invented", [](Plan& p) { p.vms.push_back("zz"); });
  }

  std::string vm_of(const std::string& ioas) const {
    for (const PlannedIoas& i : plan_.ioas) {
      if (i.id == ioas) return i.vm;
    }
    return {};
  }

  std::vector<std::string> assigned_to(const std::string& vm_name) const {
    std::vector<std::string> ids;
    for (const VirtualMachine& vm : request_.vms) {
      for (const AssignedDevice& a : vm.devices) {
        if (a.host && vm.name == vm_name) ids.push_back(request_.host.device(*a.host).id);
      }
    }
    return ids;
  }

  void hwpt(std::size_t i) {
    allocators(i);
    flags(i);
    attributes(i);
    widths(i);
    add("hwpt dropped", [i](Plan& p) { p.hwpts.erase(p.hwpts.begin() + static_cast<std::ptrdiff_t>(i)); });
    add("hwpt doubled", [i](Plan& p) { p.hwpts.push_back(p.hwpts[i]); });
    add("hwpt renamed", [i](Plan& p) { p.hwpts[i].id += "x"; });
    add("hwpt in no ioas", [i](Plan& p) { p.hwpts[i].ioas = "no-such"; });
    add("hwpt table bytes", [i](Plan& p) { p.hwpts[i].page_table_bytes += 4096; });
    add("hwpt automatic flipped", [i](Plan& p) { p.hwpts[i].automatic = !p.hwpts[i].automatic; });
    for (std::size_t d = 0; d < plan_.hwpts[i].devices.size(); ++d) device(i, d);
  }

  void allocators(std::size_t i) {
    const PlannedHwpt& h = plan_.hwpts[i];
    for (const std::string& id : assigned_to(vm_of(h.ioas))) {
      if (id != h.allocator) add_decision("allocator changed", [i, id](Plan& p) { p.hwpts[i].allocator = id; });
    }
    for (const Device& d : request_.host.devices) {
      const auto own = assigned_to(vm_of(h.ioas));
      if (std::find(own.begin(), own.end(), d.id) != own.end()) continue;
      add("allocator foreign", [i, &d](Plan& p) { p.hwpts[i].allocator = d.id; });
    }
    add("allocator invented", [i](Plan& p) { p.hwpts[i].allocator = "no-such"; });
  }

  void flags(std::size_t i) {
    for (unsigned flag : {1U, 2U, 4U}) {
      add_decision("flag toggled",
                   [i, flag](Plan& p) { p.hwpts[i].flags = static_cast<std::uint8_t>(p.hwpts[i].flags ^ flag); });
    }
    add("flag invented", [i](Plan& p) { p.hwpts[i].flags = static_cast<std::uint8_t>(p.hwpts[i].flags | 8U); });
  }

  void attributes(std::size_t i) {
    for (std::size_t k = 0; k < kHwptKindNames.size(); ++k) {
      change_enum("kind", i, &PlannedHwpt::kind, static_cast<HwptKind>(k));
    }
    for (std::size_t k = 0; k < kDriverNames.size(); ++k) {
      change_enum("driver", i, &PlannedHwpt::driver, static_cast<Driver>(k));
    }
    for (std::size_t k = 0; k < kPageTableFormatNames.size(); ++k) {
      change_enum("format", i, &PlannedHwpt::format, static_cast<PageTableFormat>(k));
    }
    add("stage", [i](Plan& p) { p.hwpts[i].stage = 3 - p.hwpts[i].stage; });
    add("cache coherency", [i](Plan& p) { p.hwpts[i].enforce_cache_coherency = !p.hwpts[i].enforce_cache_coherency; });
    add("aperture start", [i](Plan& p) { p.hwpts[i].aperture.start += 4096; });
    add("aperture shrunk", [i](Plan& p) { p.hwpts[i].aperture.last -= 4096; });
    if (plan_.hwpts[i].aperture.last < ~std::uint64_t{0}) {
      add("aperture extended", [i](Plan& p) { p.hwpts[i].aperture.last += 1; });
    }
    for (unsigned lg2 : {12U, 21U, 30U, 39U}) {
      add("page size", [i, lg2](Plan& p) { p.hwpts[i].page_sizes ^= std::uint64_t{1} << lg2; });
    }
  }

  template <class T>
  void change_enum(const std::string& name, std::size_t i, T PlannedHwpt::*field, T value) {
    if (plan_.hwpts[i].*field != value) add(name, [=](Plan& p) { p.hwpts[i].*field = value; });
  }

  void widths(std::size_t i) {
    for (int by : {-1, 1}) {
      add("levels", [i, by](Plan& p) { p.hwpts[i].levels += static_cast<unsigned>(by); });
      add("address_bits", [i, by](Plan& p) { p.hwpts[i].address_bits += static_cast<unsigned>(by); });
    }
  }

  static void take_out(Plan& p, std::size_t i, std::size_t d) {
    auto& devices = p.hwpts[i].devices;
    devices.erase(devices.begin() + static_cast<std::ptrdiff_t>(d));
    if (devices.empty()) p.hwpts.erase(p.hwpts.begin() + static_cast<std::ptrdiff_t>(i));
  }

  void put(PlannedHwpt& h, const std::string& id) const {
    h.devices.push_back(id);
    std::sort(h.devices.begin(), h.devices.end(), [&](const std::string& a, const std::string& b) {
      return request_.host.find_device(a) < request_.host.find_device(b);
    });
  }

  void device(std::size_t i, std::size_t d) {
    const std::string id = plan_.hwpts[i].devices[d];
    add("device dropped", [i, d](Plan& p) { take_out(p, i, d); });
    add("device doubled", [i, d](Plan& p) { p.hwpts[i].devices.push_back(p.hwpts[i].devices[d]); });
    add("device invented", [i, d](Plan& p) { p.hwpts[i].devices[d] = "no-such"; });
    if (d > 0) add("devices swapped", [i, d](Plan& p) { std::swap(p.hwpts[i].devices[d], p.hwpts[i].devices[d - 1]); });
    for (std::size_t j = 0; j < plan_.hwpts.size(); ++j) {
      if (j == i) continue;
      const auto move = [&, i, d, j, id](Plan& p) {
        put(p.hwpts[j], id);
        take_out(p, i, d);
      };
      if (plan_.hwpts[j].ioas == plan_.hwpts[i].ioas) {
        add_decision("device moved", move);
      } else {
        add("device moved", move);
      }
    }
    for (const Device& other : request_.host.devices) {
      const auto own = assigned_to(vm_of(plan_.hwpts[i].ioas));
      if (std::find(own.begin(), own.end(), other.id) == own.end()) {
        add("device foreign", [&, i](Plan& p) { put(p.hwpts[i], other.id); });
      }
    }
  }

  // A HWPT takes over another's devices, or splits in two.
  void decisions() {
    for (std::size_t i = 0; i < plan_.hwpts.size(); ++i) {
      for (std::size_t j = 0; j < plan_.hwpts.size(); ++j) {
        if (i == j || plan_.hwpts[i].ioas != plan_.hwpts[j].ioas) continue;
        add_decision("hwpts merged", [&, i, j](Plan& p) {
          for (const std::string& id : p.hwpts[j].devices) put(p.hwpts[i], id);
          p.hwpts.erase(p.hwpts.begin() + static_cast<std::ptrdiff_t>(j));
        });
      }
      for (std::size_t d = 0; plan_.hwpts[i].devices.size() > 1 && d < plan_.hwpts[i].devices.size(); ++d) split(i, d);
    }
    for (std::size_t k = 0; k < plan_.preferences.size(); ++k) {
      add_decision("preference dropped",
                   [k](Plan& p) { p.preferences.erase(p.preferences.begin() + static_cast<std::ptrdiff_t>(k)); });
    }
    for (const VirtualMachine& vm : request_.vms) {
      for (const char* need : {".dirty_tracking", ".nest_parent", ".pasid"}) {
        add_decision("preference added", [&](Plan& p) { p.preferences.push_back(vm.name + need); });
      }
    }
    if (plan_.ioas.size() > 1) add("ioas swapped", [](Plan& p) { std::swap(p.ioas[0].vm, p.ioas[1].vm); });
  }

  // One device goes into a HWPT of its own, allocated as the old one was, or by itself.
  void split(std::size_t i, std::size_t d) {
    for (const bool by_itself : {false, true}) {
      const auto change = [i, d, by_itself](Plan& p) {
        PlannedHwpt alone = p.hwpts[i];
        alone.id = "hwpt-alone";
        alone.devices = {p.hwpts[i].devices[d]};
        if (by_itself) alone.allocator = alone.devices.front();
        take_out(p, i, d);
        p.hwpts.push_back(alone);
      };
      add_decision("hwpt split", change);
      Plan mutant = plan_;
      change(mutant);
      mutant.optimality.proved = {};
      mutant.optimality.hwpts = mutant.hwpts.size();
      mutants_.push_back({"hwpt split, no claims", derive_(std::move(mutant))});
    }
  }

  void ioas(std::size_t i) {
    ranges(i);
    reserved(i);
    memory(i);
    add("ioas dropped", [i](Plan& p) { p.ioas.erase(p.ioas.begin() + static_cast<std::ptrdiff_t>(i)); });
    add("ioas doubled", [i](Plan& p) { p.ioas.push_back(p.ioas[i]); });
    add("ioas twice for a vm", [i](Plan& p) {
      p.ioas.push_back(p.ioas[i]);
      p.ioas.back().id = "ioas-more";
    });
    add("ioas renamed", [i](Plan& p) { p.ioas[i].id += "x"; });
    add("ioas of no vm", [i](Plan& p) { p.ioas[i].vm = "no-such"; });
    add("alignment doubled", [i](Plan& p) { p.ioas[i].alignment *= 2; });
    add("alignment halved", [i](Plan& p) { p.ioas[i].alignment /= 2; });
    add("backing doubled", [i](Plan& p) { p.ioas[i].backing *= 2; });
  }

  // Every way to damage one range of a list.
  template <class Get>
  void damage(const std::string& name, std::size_t size, Get get) {
    for (std::size_t k = 0; k < size; ++k) {
      add(name + " shifted", [=](Plan& p) {
        get(p, k).start += 4096;
        get(p, k).last += 4096;
      });
      add(name + " shrunk", [=](Plan& p) { get(p, k).last -= 4096; });
      add(name + " extended", [=](Plan& p) { get(p, k).last += 1; });
      add(name + " starts later", [=](Plan& p) { get(p, k).start += 1; });
    }
  }

  void ranges(std::size_t i) {
    const auto size = plan_.ioas[i].ranges.size();
    damage("range", size, [i](Plan& p, std::size_t k) -> Range& { return p.ioas[i].ranges[k]; });
    for (std::size_t k = 0; k < size; ++k) {
      add("range dropped",
          [i, k](Plan& p) { p.ioas[i].ranges.erase(p.ioas[i].ranges.begin() + static_cast<std::ptrdiff_t>(k)); });
    }
    add("range invented", [i](Plan& p) { p.ioas[i].ranges.insert(p.ioas[i].ranges.begin(), Range{0, 1}); });
  }

  void reserved(std::size_t i) {
    const auto size = plan_.ioas[i].reserved.size();
    damage("reserved", size, [i](Plan& p, std::size_t k) -> Range& { return p.ioas[i].reserved[k].range; });
    for (std::size_t k = 0; k < size; ++k) {
      add("reserved dropped",
          [i, k](Plan& p) { p.ioas[i].reserved.erase(p.ioas[i].reserved.begin() + static_cast<std::ptrdiff_t>(k)); });
      add("reserved type", [i, k](Plan& p) { p.ioas[i].reserved[k].type = ReservedType::direct_relaxable; });
    }
    add("reserved invented", [i](Plan& p) {
      p.ioas[i].reserved.push_back({{0xfffffffffffff000, 0xfffffffffffffffe}, ReservedType::reserved});
    });
  }

  void memory(std::size_t i) {
    const auto size = plan_.ioas[i].memory.size();
    damage("memory", size, [i](Plan& p, std::size_t k) -> Range& { return p.ioas[i].memory[k].gpa; });
    for (std::size_t k = 0; k < size; ++k) {
      add("memory dropped",
          [i, k](Plan& p) { p.ioas[i].memory.erase(p.ioas[i].memory.begin() + static_cast<std::ptrdiff_t>(k)); });
      add("memory access", [i, k](Plan& p) {
        Access& a = p.ioas[i].memory[k].access;
        a = a == Access::read_only ? Access::read_write : Access::read_only;
      });
    }
  }

  void numbers() {
    for (auto field : {&Resources::pinned_bytes, &Resources::page_table_bytes, &Resources::memlock_bytes}) {
      add("resource raised", [field](Plan& p) { p.resources.*field += 4096; });
      add("resource lowered", [field](Plan& p) { p.resources.*field -= 1; });
    }
    for (std::size_t o = 0; o < kObjectiveNames.size(); ++o) {
      add("objective raised", [o](Plan& p) { ++p.objectives.by_objective[o]; });
      add("objective lowered", [o](Plan& p) { --p.objectives.by_objective[o]; });
    }
  }

  void proof() {
    for (int by : {-1, 1}) {
      const auto step = static_cast<std::uint64_t>(by);
      add("optimality.hwpts", [step](Plan& p) { p.optimality.hwpts += step; });
      add("lower_bound", [step](Plan& p) { p.optimality.lower_bound += step; });
    }
    for (std::size_t k = 0; k < kProofKindNames.size(); ++k) {
      if (plan_.optimality.proof == static_cast<ProofKind>(k)) continue;
      add("proof kind", [k](Plan& p) { p.optimality.proof = static_cast<ProofKind>(k); });
    }
    for (std::size_t o = 0; o < kObjectiveNames.size(); ++o) {
      add("proved flipped", [o](Plan& p) { p.optimality.proved[o] = !p.optimality.proved[o]; });
    }
    add("bound raised with a witness", [this](Plan& p) {
      for (const PlannedHwpt& h : plan_.hwpts) {
        for (const std::string& id : h.devices) {
          const auto& w = p.optimality.witness;
          if (std::find(w.begin(), w.end(), id) != w.end()) continue;
          p.optimality.witness.push_back(id);
          ++p.optimality.lower_bound;
          ++p.optimality.hwpts;
          return;
        }
      }
    });
    for (std::size_t k = 0; k < plan_.optimality.witness.size(); ++k) witness(k);
  }

  void witness(std::size_t k) {
    const auto erase = [k](Plan& p) {
      auto& w = p.optimality.witness;
      w.erase(w.begin() + static_cast<std::ptrdiff_t>(k));
    };
    add("witness dropped", erase);
    add("witness doubled", [k](Plan& p) { p.optimality.witness.push_back(p.optimality.witness[k]); });
    add("witness invented", [k](Plan& p) { p.optimality.witness[k] = "no-such"; });
    add("witness dropped, bound lowered", [=](Plan& p) {
      erase(p);
      --p.optimality.lower_bound;
    });
    for (const Device& d : request_.host.devices) {
      if (d.id == plan_.optimality.witness[k]) continue;
      add("witness replaced", [&d, k](Plan& p) { p.optimality.witness[k] = d.id; });
    }
  }

  void kvm() {
    add("kvm flipped", [](Plan& p) { p.kvm.noncoherent_dma = !p.kvm.noncoherent_dma; });
    for (std::size_t k = 0; k < plan_.kvm.because.size(); ++k) {
      add("because dropped",
          [k](Plan& p) { p.kvm.because.erase(p.kvm.because.begin() + static_cast<std::ptrdiff_t>(k)); });
    }
    for (const Device& d : request_.host.devices) {
      add("because added", [&d](Plan& p) { p.kvm.because.push_back(d.id); });
    }
  }

  void assumptions() {
    for (std::size_t k = 0; k < plan_.assumptions.size(); ++k) {
      add("assumption dropped: " + plan_.assumptions[k].fact,
          [k](Plan& p) { p.assumptions.erase(p.assumptions.begin() + static_cast<std::ptrdiff_t>(k)); });
      add("assumption doubled", [k](Plan& p) { p.assumptions.push_back(p.assumptions[k]); });
      add("assumption value: " + plan_.assumptions[k].fact, [k](Plan& p) { p.assumptions[k].value += "0"; });
      add("assumption invented", [k](Plan& p) { p.assumptions[k].fact += "x"; });
      for (std::size_t s = 0; s < plan_.assumptions[k].subjects.size(); ++s) {
        add("assumption subject dropped: " + plan_.assumptions[k].fact, [k, s](Plan& p) {
          auto& subjects = p.assumptions[k].subjects;
          subjects.erase(subjects.begin() + static_cast<std::ptrdiff_t>(s));
        });
        add("assumption subject invented", [k, s](Plan& p) { p.assumptions[k].subjects[s] = "no-such"; });
      }
    }
  }

  void steps() {
    for (std::size_t k = 0; k < plan_.steps.size(); ++k) {
      const std::string kind(kStepKindNames[static_cast<std::size_t>(plan_.steps[k].kind)]);
      add("step dropped: " + kind, [k](Plan& p) { p.steps.erase(p.steps.begin() + static_cast<std::ptrdiff_t>(k)); });
      add("step doubled: " + kind, [k](Plan& p) {
        const Step again = p.steps[k];
        p.steps.insert(p.steps.begin() + static_cast<std::ptrdiff_t>(k), again);
      });
      add("step device: " + kind, [k](Plan& p) { p.steps[k].device = "no-such"; });
      add("step first: " + kind, [k](Plan& p) {
        std::rotate(p.steps.begin(), p.steps.begin() + static_cast<std::ptrdiff_t>(k),
                    p.steps.begin() + static_cast<std::ptrdiff_t>(k) + 1);
      });
      if (k > 0) add("steps swapped: " + kind, [k](Plan& p) { std::swap(p.steps[k], p.steps[k - 1]); });
      step(k, kind);
    }
  }

  void step(std::size_t k, const std::string& kind) {
    const Step& s = plan_.steps[k];
    if (s.kind == StepKind::hwpt_alloc) {
      add("step flags", [k](Plan& p) { p.steps[k].flags = static_cast<std::uint8_t>(p.steps[k].flags ^ 1U); });
    }
    if (!s.ioas.empty()) add("step ioas: " + kind, [k](Plan& p) { p.steps[k].ioas = "no-such"; });
    if (!s.hwpt.empty()) add("step hwpt: " + kind, [k](Plan& p) { p.steps[k].hwpt = "no-such"; });
    if (s.kind == StepKind::map) {
      add("step access", [k](Plan& p) { p.steps[k].writeable = !p.steps[k].writeable; });
      add("step map extended", [k](Plan& p) { p.steps[k].iova.last += 4096; });
      add("step map shrunk", [k](Plan& p) { p.steps[k].iova.last -= 4096; });
    }
    for (std::size_t r = 0; r < s.ranges.size(); ++r) {
      add("allowed extended", [k, r](Plan& p) { p.steps[k].ranges[r].last += 4096; });
      add("allowed shrunk", [k, r](Plan& p) { p.steps[k].ranges[r].last -= 4096; });
      add("allowed everything", [k, r](Plan& p) { p.steps[k].ranges[r] = {0, ~std::uint64_t{0}}; });
      add("allowed dropped",
          [k, r](Plan& p) { p.steps[k].ranges.erase(p.steps[k].ranges.begin() + static_cast<std::ptrdiff_t>(r)); });
    }
  }

  // The same plan called by another name, and a refusal out of thin air.
  void verdict() {
    for (Verdict v : {Verdict::infeasible, Verdict::undecided}) {
      add("verdict changed", [v](Plan& p) { p.verdict = v; });
      Plan bare;
      bare.fingerprint = plan_.fingerprint;
      bare.vms = plan_.vms;
      bare.verdict = v;
      bare.assumptions = plan_.assumptions;
      mutants_.push_back({"refused without a reason", bare});
      bare.conflict = {{"usable.direct-region", {}, "a lie"}};
      if (v == Verdict::undecided) {
        bare.conflict.clear();
        bare.unknown = {{"kernel.release", "6.12", "infeasible", "7.2.13", "feasible"}};
      }
      mutants_.push_back({"refused with a lie", bare});
    }
    add("feasible with a conflict", [](Plan& p) { p.conflict = {{"usable.direct-region", {}, "a lie"}}; });
    add("feasible with an unknown", [](Plan& p) { p.unknown = {{"kernel.la57", "true", "a", "false", "b"}}; });
  }

  const Plan& plan_;
  const Request& request_;
  const std::function<Plan(Plan)>& derive_;
  std::vector<Mutant> mutants_;
};

class Stricter {
 public:
  Stricter(const Request& request, const Plan& plan) : request_(request), plan_(plan) {}

  std::vector<StricterRequest> make() {
    hosts();
    for (std::size_t v = 0; v < request_.vms.size(); ++v) vm(v);
    policies();
    return std::move(made_);
  }

 private:
  template <class Change>
  void add(std::string name, Change change) {
    Request stricter = request_;
    change(stricter);
    made_.push_back({std::move(name), std::move(stricter)});
  }

  void hosts() {
    for (std::size_t d = 0; d < request_.host.devices.size(); ++d) {
      add("direct region", [d](Request& r) {
        r.host.devices[d].reserved = {{{0x1000000000000000, 0x1000000000000fff}, ReservedType::direct}};
      });
      add("region over memory", [d](Request& r) {
        r.host.devices[d].reserved = {{{0, ~std::uint64_t{0}}, ReservedType::reserved}};
      });
      add("two msi windows", [d](Request& r) {
        r.host.devices[d].reserved = {{{0x1000000000000000, 0x1000000000000fff}, ReservedType::msi},
                                      {{0x2000000000000000, 0x2000000000000fff}, ReservedType::sw_msi}};
      });
      add("incoherent dma", [d](Request& r) { r.host.devices[d].facts[DeviceFact::dma_coherent] = 0; });
      add("no isolated msi", [d](Request& r) { r.host.devices[d].facts[DeviceFact::isolated_msi] = 0; });
    }
    for (std::size_t u = 0; u < request_.host.units.size(); ++u) unit(u);
    kernel();
  }

  void kernel() {
    add("large pages", [](Request& r) { r.host.kernel.facts[KernelFact::page_size] = 65536; });
    add("old kernel", [](Request& r) { r.host.kernel.release = "6.12.43"; });
    add("no isolated msi at all", [](Request& r) { r.host.kernel.facts[KernelFact::isolated_msi] = 0; });
  }

  void unit(std::size_t u) {
    for (std::uint64_t used : {1ULL, 13ULL, 14ULL, 253ULL, 254ULL, 65534ULL, 0xffffffffULL}) {
      add("domains used", [u, used](Request& r) { r.host.units[u].facts[UnitFact::domains_used] = used; });
    }
    if (request_.host.units[u].driver != Driver::intel) return;
    for (unsigned bit : {7U, 26U, 43U, 45U, 46U, 47U, 48U}) {
      add("ecap bit", [u, bit](Request& r) { *r.host.units[u].facts[UnitFact::ecap] ^= std::uint64_t{1} << bit; });
    }
    for (unsigned bit : {4U, 7U, 10U, 11U, 34U, 35U, 56U}) {
      add("cap bit", [u, bit](Request& r) { *r.host.units[u].facts[UnitFact::cap] ^= std::uint64_t{1} << bit; });
    }
  }

  void vm(std::size_t v) {
    add("needs dirty tracking", [v](Request& r) { r.vms[v].needs.dirty_tracking = Need::required; });
    add("needs nest parent", [v](Request& r) { r.vms[v].needs.nest_parent = Need::required; });
    add("needs pasid", [v](Request& r) { r.vms[v].needs.pasid = Need::required; });
    add("memory far up", [v](Request& r) {
      r.vms[v].memory.size.reset();
      r.vms[v].memory.ranges = {{{0x100000000000000, 0x1000000000fffff}, Access::read_write}};
    });
    add("memory read-only", [v](Request& r) {
      r.vms[v].memory.size.reset();
      r.vms[v].memory.ranges = {{{0x40000000, 0x400fffff}, Access::read_only}};
    });
    add("half pages", [v](Request& r) {
      r.vms[v].memory.size.reset();
      r.vms[v].memory.ranges = {{{0x100000000, 0x100000fff}, Access::read_write}};
    });
    add("half kernel pages", [v](Request& r) {
      r.host.kernel.facts[KernelFact::page_size] = 65536;
      r.vms[v].memory.size.reset();
      r.vms[v].memory.ranges = {{{0x100000000, 0x100000fff}, Access::read_write}};
    });
    for (const AssignedDevice& a : request_.vms[v].devices) {
      const std::string id = a.host ? request_.host.device(*a.host).id : a.mdev;
      const AssignedDevice& first = request_.vms[v].devices.front();
      const std::string other = first.host ? request_.host.device(*first.host).id : first.mdev;
      if (id != other) add("peers", [v, id, other](Request& r) { r.vms[v].needs.p2p = {{other, id}}; });
    }
  }

  void policy(std::string name, PolicyRule rule) {
    rule.name = "extra";
    add(std::move(name), [&](Request& r) { r.policy.rules.push_back(rule); });
  }

  static Selector just(const std::string& id) {
    Selector s;
    s.host = {id};
    return s;
  }

  void policies() {
    add("strict", [](Request& r) { r.policy.coherency = CoherencyPolicy::strict; });
    add("required", [](Request& r) { r.policy.coherency = CoherencyPolicy::required; });
    add("assumptions refused", [](Request& r) { r.policy.assumptions = Permission::refuse; });
    add("assumed coherency refused", [](Request& r) { r.policy.assumed_coherency = Permission::refuse; });
    for (std::uint64_t n : {0ULL, 1ULL, 2ULL}) policy("limit", {{}, LimitRule{n}});
    std::vector<std::string> ids;
    for (const PlannedHwpt& h : plan_.hwpts) ids.insert(ids.end(), h.devices.begin(), h.devices.end());
    for (const std::string& a : ids) {
      require(a);
      for (const std::string& b : ids) {
        if (a < b) pair(a, b);
      }
    }
  }

  void pair(const std::string& a, const std::string& b) {
    policy("separate", {{}, SeparateRule{just(a), just(b)}});
    TogetherRule together;
    together.which.host = {a, b};
    policy("together", {{}, together});
  }

  void require(const std::string& id) {
    RequireRule rule;
    rule.which = just(id);
    const auto with = [&](const char* name, auto change) {
      RequireRule r = rule;
      change(r);
      policy(name, {{}, r});
    };
    with("require dirty", [](RequireRule& r) { r.dirty_tracking = true; });
    with("require nest", [](RequireRule& r) { r.nest_parent = true; });
    with("require pasid", [](RequireRule& r) { r.pasid = true; });
    with("require coherency", [](RequireRule& r) { r.enforce_cache_coherency = true; });
    with("require 2MiB", [](RequireRule& r) { r.page_size = std::uint64_t{1} << 21; });
    with("require 1GiB", [](RequireRule& r) { r.page_size = std::uint64_t{1} << 30; });
    with("require 1TiB", [](RequireRule& r) { r.page_size = std::uint64_t{1} << 40; });
  }

  const Request& request_;
  const Plan& plan_;
  std::vector<StricterRequest> made_;
};

}  // namespace

std::vector<Mutant> mutants_of(const Plan& plan, const Request& request, const std::function<Plan(Plan)>& derive) {
  return Maker(plan, request, derive).make();
}

std::vector<StricterRequest> stricter_requests(const Request& request, const Plan& plan) {
  return Stricter(request, plan).make();
}

std::vector<Mutant> mutants_of_a_no(const Plan& plan) {
  std::vector<Mutant> mutants;
  const auto add = [&](std::string name, auto change) {
    Plan mutant = plan;
    change(mutant);
    mutants.push_back({std::move(name), std::move(mutant)});
  };
  add("no fingerprint", [](Plan& p) { p.fingerprint.clear(); });
  add("called feasible", [](Plan& p) { p.verdict = Verdict::feasible; });
  add("called feasible, no reasons", [](Plan& p) {
    p.verdict = Verdict::feasible;
    p.conflict.clear();
    p.unknown.clear();
  });
  add("claims a bound", [](Plan& p) { p.optimality.lower_bound = 1; });
  add("places something", [](Plan& p) { p.hwpts.emplace_back().id = "hwpt0"; });
  add("has steps", [](Plan& p) { p.steps.emplace_back(); });
  add("has an ioas", [](Plan& p) { p.ioas.emplace_back().id = "ioas0"; });
  add("no conflict", [](Plan& p) { p.conflict.clear(), p.unknown.clear(); });
  for (std::size_t k = 0; k < plan.conflict.size(); ++k) {
    add("invented rule", [k](Plan& p) { p.conflict[k].rule = "no-such.rule"; });
    add("invented subject", [k](Plan& p) { p.conflict[k].subjects.push_back("no-such"); });
    add("no because", [k](Plan& p) { p.conflict[k].because.clear(); });
  }
  for (std::size_t k = 0; k < plan.unknown.size(); ++k) {
    add("known fact", [k](Plan& p) { p.unknown[k].fact = "kernel.arch"; });
    add("fact with a default", [k](Plan& p) { p.unknown[k].fact = "kernel.release"; });
    add("invented fact", [k](Plan& p) { p.unknown[k].fact += "x"; });
    add("one value", [k](Plan& p) { p.unknown[k].second_value = p.unknown[k].first_value; });
    add("one answer", [k](Plan& p) { p.unknown[k].second_answer = p.unknown[k].first_answer; });
  }
  return mutants;
}

}  // namespace ioplan::mutants

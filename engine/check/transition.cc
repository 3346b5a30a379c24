#include "engine/check/transition.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "engine/base/text.h"
#include "engine/check/joining.h"
#include "engine/check/running_world.h"

namespace ioplan {

namespace check {

namespace {

class Replay {
 public:
  Replay(const Plan& from, const Plan& to, const Request& request, const Law& law)
      : law_(law),
        host_(request.host),
        policy_(request.policy),
        scenes_(request, law, to.preferences),
        now_(world_of(from, host_, law)),
        target_(world_of(to, host_, law)),
        vm_of_(vm_of_devices(from)) {
    for (const auto& [device, vm] : vm_of_devices(to)) vm_of_[device] = vm;
    for (std::size_t d = 0; d < host_.devices.size(); ++d) {
      if (host_.devices[d].group) groups_[*host_.devices[d].group].push_back(d);
    }
  }

  Judgement run(const std::vector<Step>& steps) {
    if (const std::string danger = danger_now(); !danger.empty()) {
      object(obligation::always_safe, "before the first step: " + danger);
      return std::move(judgement_);
    }
    for (std::size_t s = 0; s < steps.size(); ++s) {
      const std::string fault = take(steps[s]);
      const std::string danger = fault.empty() ? danger_now() : "";
      if (fault.empty() && danger.empty()) continue;
      object(fault.empty() ? obligation::always_safe : obligation::step_taken,
             fmt::format("{} step {}: {}", fault.empty() ? "after" : "in", s + 1, fault.empty() ? danger : fault));
      return std::move(judgement_);
    }
    compare();
    return std::move(judgement_);
  }

 private:
  void object(std::string_view obligation, std::string text) {
    judgement_.objections.push_back({std::string(obligation), {}, std::move(text)});
  }

  // ------------------------------------------------------------------------------------------- what is known

  std::optional<std::size_t> index_of(const std::string& device) const {
    const auto found = host_.find_device(device);
    return found ? std::optional(found->index()) : std::nullopt;
  }

  DeviceQuantities describe(std::size_t device) const { return law_.describe(host_, DeviceIndex(device)); }

  std::vector<std::size_t> members(std::size_t device) const {
    const auto group = host_.devices[device].group;
    return group ? groups_.at(*group) : std::vector<std::size_t>{device};
  }

  bool noncoherent(const std::string& device) const {
    const auto d = index_of(device);
    return !d || describe(*d)[DeviceQ::enforce_cache_coherency] == 0;
  }

  std::vector<ReservedRegion> regions(const std::string& device) const {
    const auto d = index_of(device);
    return d ? binding_regions(scenes_, *d) : std::vector<ReservedRegion>{};
  }

  // ------------------------------------------------------------------------------------------- safety

  std::string danger_now() const {
    for (const auto& [device, hwpt] : now_.home) {
      if (const std::string danger = danger_of(device, now_.hwpts.at(hwpt), hwpt); !danger.empty()) return danger;
    }
    for (const auto& [device, ioas] : now_.access) {
      if (policy_.coherency == CoherencyPolicy::required) return "`" + device + "` is mediated under `required`";
      if (!kvm_noncoherent(vm_of_.at(device))) return "KVM is coherent while `" + device + "` has access";
    }
    for (const auto& [id, space] : now_.spaces) {
      if (const std::string danger = danger_of(id, space); !danger.empty()) return danger;
    }
    return "";
  }

  std::string danger_of(const std::string& device, const RunningHwpt& hwpt, const std::string& id) const {
    if (!vm_of_.contains(device)) return "";  // no VM has it: it is there to open a container's domain
    const bool blocks = hwpt.what[HwptQ::enforce_cache_coherency] != 0;
    const bool capable = !noncoherent(device);
    if (!blocks && !kvm_noncoherent(vm_of_.at(device))) {
      return fmt::format("KVM is coherent while `{}` is in `{}`, which does not block no-snoop", device, id);
    }
    if (policy_.coherency == CoherencyPolicy::safe) return "";
    if (!blocks && capable) return fmt::format("`{}` could have no-snoop blocked, and `{}` does not", device, id);
    if (policy_.coherency == CoherencyPolicy::required && !capable) return "`" + device + "` cannot be made coherent";
    return "";
  }

  bool kvm_noncoherent(const std::string& vm) const {
    return std::ranges::any_of(now_.registered, [&](const auto& d) { return vm_of_.at(d) == vm && noncoherent(d); });
  }

  std::string danger_of(const std::string& id, const RunningSpace& space) const {
    const Intervals allowed = merged(space.allowed);
    for (const MemoryRange& m : space.mapped) {
      const std::string where = format_ranges({&m.gpa, 1});
      if (!in_containers() && !covers(allowed, m.gpa)) return fmt::format("`{}` maps {}, which is not allowed", id, where);
      for (const ReservedRegion& r : reserved_in(id)) {
        if (r.range.overlaps(m.gpa)) return fmt::format("`{}` maps {} under a reserved region", id, where);
      }
    }
    return outside(id, allowed_or_mapped(space)).value_or("");
  }

  static std::vector<Range> allowed_or_mapped(const RunningSpace& space) {
    std::vector<Range> ranges = space.allowed;
    for (const MemoryRange& m : space.mapped) ranges.push_back(m.gpa);
    return ranges;
  }

  std::vector<ReservedRegion> reserved_in(const std::string& ioas) const {
    std::vector<ReservedRegion> found;
    for (const auto& [device, hwpt] : now_.home) {
      if (now_.hwpts.at(hwpt).ioas != ioas) continue;
      for (const ReservedRegion& r : regions(device)) found.push_back(r);
    }
    return found;
  }

  std::optional<std::string> outside(const std::string& ioas, const std::vector<Range>& ranges) const {
    for (const auto& [id, hwpt] : now_.hwpts) {
      if (hwpt.ioas != ioas) continue;
      const Range aperture{hwpt.what[HwptQ::aperture_start], hwpt.what[HwptQ::aperture_last]};
      for (const Range& r : ranges) {
        if (!aperture.contains(r)) return fmt::format("{} is outside the aperture of `{}`", format_ranges({&r, 1}), id);
      }
    }
    return std::nullopt;
  }

  // ------------------------------------------------------------------------------------------- steps

  std::string take(const Step& s) {
    if (in_containers()) return take_in_containers(s);
    switch (s.kind) {
      case StepKind::bind:
        return bind(s);
      case StepKind::unbind:
        return unbind(s);
      case StepKind::kvm_file_add:
        return now_.registered.insert(s.device).second ? known_device(s.device) : "it is registered already";
      case StepKind::kvm_file_del:
        if (attached(s.device)) return fmt::format("`{}` is still attached", s.device);
        return now_.registered.erase(s.device) == 1 ? "" : "it is not registered";
      case StepKind::ioas_alloc:
        return make_space(s);
      case StepKind::ioas_destroy:
        return destroy_space(s);
      case StepKind::allow_iovas:
        return allow(s);
      case StepKind::hwpt_alloc:
        return alloc(s);
      case StepKind::hwpt_destroy:
        return destroy(s);
      case StepKind::attach:
        return attach(s);
      case StepKind::attach_ioas:
        return is_uuid(s.device) ? give_access(s) : attach_automatic(s);
      case StepKind::replace:
        return replace(s);
      case StepKind::detach:
        return detach(s);
      case StepKind::map:
        return map(s);
      case StepKind::unmap:
        return unmap(s);
    }
    return "no such step";
  }

  bool in_containers() const { return law_.interface() == KernelInterface::type1; }

  // Groups join and leave, memory is mapped; a file is opened to be registered.
  std::string take_in_containers(const Step& s) {
    switch (s.kind) {
      case StepKind::kvm_file_add:
        now_.bound.insert(s.device);
        return now_.registered.insert(s.device).second ? known_device(s.device) : "it is registered already";
      case StepKind::kvm_file_del:
        if (attached(s.device)) return fmt::format("`{}` is still attached", s.device);
        now_.bound.erase(s.device);
        return now_.registered.erase(s.device) == 1 ? "" : "it is not registered";
      case StepKind::ioas_alloc:
        return make_space(s);
      case StepKind::ioas_destroy:
        return destroy_space(s);
      case StepKind::attach_ioas:
        return join_container(s);
      case StepKind::detach:
        return leave_container(s);
      case StepKind::map:
        return map(s);
      case StepKind::unmap:
        return unmap(s);
      default:
        return "a type1 container has no such step";
    }
  }

  std::string known_device(const std::string& device) const {
    return vm_of_.contains(device) ? "" : fmt::format("`{}` is of neither layout", device);
  }

  bool attached(const std::string& device) const { return now_.home.contains(device) || now_.access.contains(device); }

  // A guest that is bound only to allocate belongs to no VM; it is never registered.
  std::string bind(const Step& s) {
    if (!now_.bound.insert(s.device).second) return fmt::format("`{}` is bound already", s.device);
    const auto d = index_of(s.device);
    if (is_uuid(s.device)) return known_device(s.device);
    if (!d) return fmt::format("`{}` is no device of the host", s.device);
    const auto vm = vm_of_.find(s.device);
    const Scene* scene = vm == vm_of_.end() ? nullptr : scenes_.scene(vm->second);
    if (scene == nullptr || !scene->quantities.contains(*d)) return "";
    const Values self{nullptr, &scene->quantities.at(*d), &scene->asks};
    if (const Rule* rule = scenes_.statutes.broken(Phase::usable, self)) return std::string(rule->name);
    for (const std::size_t member : members(*d)) {
      const Values values{nullptr, &scene->quantities.at(member), &scene->asks};
      if (const Rule* rule = scenes_.statutes.broken(Phase::group, values)) return std::string(rule->name);
    }
    return "";
  }

  std::string unbind(const Step& s) {
    if (attached(s.device)) return fmt::format("`{}` is still attached", s.device);
    if (now_.registered.contains(s.device)) return fmt::format("the file of `{}` is still with KVM", s.device);
    return now_.bound.erase(s.device) == 1 ? "" : fmt::format("`{}` is not bound", s.device);
  }

  std::string make_space(const Step& s) {
    const auto planned = target_.spaces.find(s.ioas);
    if (planned == target_.spaces.end()) return fmt::format("`{}` is not of the target", s.ioas);
    return now_.spaces.try_emplace(s.ioas, RunningSpace{planned->second.vm, {}, {}, {}}).second ? ""
                                                                                            : "it is there already";
  }

  std::string destroy_space(const Step& s) {
    const auto it = now_.spaces.find(s.ioas);
    if (it == now_.spaces.end()) return fmt::format("there is no `{}`", s.ioas);
    const bool used = std::ranges::any_of(now_.hwpts, [&](const auto& h) { return h.second.ioas == s.ioas; }) ||
                      std::ranges::any_of(now_.access, [&](const auto& a) { return a.second == s.ioas; });
    if (used || !it->second.mapped.empty()) return fmt::format("`{}` is in use", s.ioas);
    now_.spaces.erase(it);
    return "";
  }

  std::string allow(const Step& s) {
    const auto it = now_.spaces.find(s.ioas);
    if (it == now_.spaces.end()) return fmt::format("there is no `{}`", s.ioas);
    for (std::size_t r = 0; r < s.ranges.size(); ++r) {
      if (s.ranges[r].start >= s.ranges[r].last) return "an allowed range is empty";
      if (r > 0 && s.ranges[r].start <= s.ranges[r - 1].last) return "allowed ranges overlap or are out of order";
      for (const ReservedRegion& region : reserved_in(s.ioas)) {
        if (region.range.overlaps(s.ranges[r])) return "an allowed range is reserved";
      }
    }
    if (const auto fault = outside(s.ioas, s.ranges)) return *fault;
    it->second.allowed = s.ranges;
    return "";
  }

  std::string alloc(const Step& s) {
    const auto space = now_.spaces.find(s.ioas);
    const auto maker = index_of(s.device);
    if (space == now_.spaces.end()) return fmt::format("there is no `{}`", s.ioas);
    if (!maker || !now_.bound.contains(s.device)) return fmt::format("`{}` is not bound", s.device);
    if (now_.hwpts.contains(s.hwpt)) return fmt::format("`{}` is there already", s.hwpt);
    const DeviceQuantities device = describe(*maker);
    const HwptQuantities what = law_.allocate(device, s.flags);
    if (law_.automatic_only(static_cast<Driver>(what[HwptQ::driver]))) return "its driver makes HWPTs by attaching";
    const VmQuantities nothing;
    const Values values{&what, &device, &nothing};
    if (const Rule* rule = scenes_.statutes.broken(Phase::allocation, values)) return std::string(rule->name);
    if (const std::string fault = misfit(what, space->second); !fault.empty()) return fault;
    now_.hwpts[s.hwpt] = {s.ioas, what, false, *maker};
    return has_own_id(now_.hwpts.at(s.hwpt)) ? "" : "the unit has no domain id left";
  }

  // What the kernel asks of a HWPT that joins an IOAS: alignment, aperture, and that everything can be mapped.
  std::string misfit(const HwptQuantities& what, const RunningSpace& space) const {
    const Range aperture{what[HwptQ::aperture_start], what[HwptQ::aperture_last]};
    for (const Range& r : allowed_or_mapped(space)) {
      if (!aperture.contains(r)) return format_ranges({&r, 1}) + " is outside its aperture";
    }
    if (what[HwptQ::smallest_page] > scenes_.kernel_page()) return "its pages are larger than the kernel's";
    for (const MemoryRange& m : space.mapped) {
      if (misaligned(m.gpa, what[HwptQ::smallest_page])) return "what is mapped is not aligned to its pages";
      if (m.access == Access::read_only && what[HwptQ::takes_read_only] == 0) return "it holds no read-only mapping";
    }
    return "";
  }

  static bool misaligned(const Range& r, std::uint64_t to) { return ((r.start | (r.last + 1)) & (to - 1)) != 0; }

  std::string destroy(const Step& s) {
    const auto it = now_.hwpts.find(s.hwpt);
    if (it == now_.hwpts.end()) return fmt::format("there is no `{}`", s.hwpt);
    const bool used = std::ranges::any_of(now_.home, [&](const auto& h) { return h.second == s.hwpt; });
    if (used || it->second.automatic) return fmt::format("`{}` is in use", s.hwpt);
    now_.hwpts.erase(it);
    return "";
  }

  std::string attach(const Step& s) {
    const auto hwpt = now_.hwpts.find(s.hwpt);
    if (hwpt == now_.hwpts.end()) return fmt::format("there is no `{}`", s.hwpt);
    if (hwpt->second.automatic) return fmt::format("`{}` is automatic", s.hwpt);
    return join(s.device, s.hwpt, hwpt->second);
  }

  std::string join(const std::string& device, const std::string& id, const RunningHwpt& hwpt) {
    const auto d = index_of(device);
    if (!d || !now_.bound.contains(device)) return fmt::format("`{}` is not bound", device);
    if (attached(device)) return fmt::format("`{}` is attached already", device);
    for (const std::size_t member : members(*d)) {
      const auto home = now_.home.find(host_.devices[member].id);
      if (home != now_.home.end() && home->second != id) return "its group is in another HWPT";
    }
    if (const std::string fault = refusal(*d, hwpt.what); !fault.empty()) return fault;
    for (const Range& r : allowed_or_mapped(now_.spaces.at(hwpt.ioas))) {
      for (const ReservedRegion& region : regions(device)) {
        if (region.range.overlaps(r)) return "a region of it lies over what is mapped or allowed";
      }
    }
    if (!has_domain_id(*d, id)) return "the unit has no domain id left";
    now_.home[device] = id;
    return "";
  }

  // The first driver rule by which a member of the group is refused.
  std::string refusal(std::size_t device, const HwptQuantities& what) const {
    for (const std::size_t member : members(device)) {
      const DeviceQuantities q = describe(member);
      const VmQuantities nothing;
      if (const Rule* rule = scenes_.statutes.broken(Phase::attach, {&what, &q, &nothing})) {
        return fmt::format("{} refuses `{}`", rule->name, host_.devices[member].id);
      }
    }
    return "";
  }

  bool id_at_birth(const RunningHwpt& h) const {
    return !h.automatic && law_.id_at_allocation(static_cast<Driver>(h.what[HwptQ::driver]));
  }

  std::optional<DomainPool> pool_of(const RunningHwpt& h) const {
    return law_.domain_pool(host_, *host_.devices[h.maker].unit, static_cast<unsigned>(h.what[HwptQ::stage]));
  }

  // Of a HWPT that was just made.
  bool has_own_id(const RunningHwpt& made) const {
    const auto pool = id_at_birth(made) ? pool_of(made) : std::nullopt;
    const auto draws = [&](const auto& other) {
      const auto taken = id_at_birth(other.second) ? pool_of(other.second) : std::nullopt;
      return taken && taken->key == pool->key;
    };
    return !pool || static_cast<std::uint64_t>(std::ranges::count_if(now_.hwpts, draws)) <= pool->capacity;
  }

  // One id for every HWPT and pool that it reaches, by the groups that are in it now and this one.
  bool has_domain_id(std::size_t device, const std::string& id) const {
    if (id_at_birth(now_.hwpts.at(id))) return true;
    const auto stage = [&](const std::string& h) { return static_cast<unsigned>(now_.hwpts.at(h).what[HwptQ::stage]); };
    for (const std::size_t member : members(device)) {
      const auto pool = law_.domain_pool(host_, *host_.devices[member].unit, stage(id));
      if (!pool) continue;
      std::set<std::string> holders{id};
      for (const auto& [other, hwpt] : now_.home) {
        if (id_at_birth(now_.hwpts.at(hwpt))) continue;
        for (const std::size_t m : members(*index_of(other))) {
          const auto taken = law_.domain_pool(host_, *host_.devices[m].unit, stage(hwpt));
          if (taken && taken->key == pool->key) holders.insert(hwpt);
        }
      }
      if (holders.size() > pool->capacity) return false;
    }
    return true;
  }

  std::string attach_automatic(const Step& s) {
    const auto d = index_of(s.device);
    if (!d || !now_.spaces.contains(s.ioas)) return "there is nothing to attach";
    if (!law_.automatic_only(static_cast<Driver>(describe(*d)[DeviceQ::driver]))) return "its driver takes HWPTs";
    const auto known = now_.hwpts.find(s.hwpt);
    if (known != now_.hwpts.end()) {
      if (!known->second.automatic || known->second.ioas != s.ioas) return "it gets another HWPT";
      return join(s.device, s.hwpt, known->second);
    }
    const HwptQuantities what = law_.allocate(describe(*d), 0);
    if (const std::string fault = misfit(what, now_.spaces.at(s.ioas)); !fault.empty()) return fault;
    now_.hwpts[s.hwpt] = {s.ioas, what, true, *d};
    return join(s.device, s.hwpt, now_.hwpts.at(s.hwpt));
  }

  std::string give_access(const Step& s) {
    const auto space = now_.spaces.find(s.ioas);
    if (space == now_.spaces.end()) return fmt::format("there is no `{}`", s.ioas);
    if (!now_.bound.contains(s.device)) return fmt::format("`{}` is not bound", s.device);
    for (const MemoryRange& m : space->second.mapped) {
      if (misaligned(m.gpa, scenes_.kernel_page())) return "what is mapped is not aligned to the kernel's page";
    }
    return now_.access.try_emplace(s.device, s.ioas).second ? "" : fmt::format("`{}` is attached already", s.device);
  }

  std::string replace(const Step& s) {
    const auto home = now_.home.find(s.device);
    const auto to = now_.hwpts.find(s.hwpt);
    if (home == now_.home.end()) return fmt::format("`{}` is not attached", s.device);
    if (to == now_.hwpts.end() || to->second.automatic) return fmt::format("`{}` takes no replace", s.hwpt);
    const RunningHwpt& from = now_.hwpts.at(home->second);
    if (home->second == s.hwpt || from.ioas != to->second.ioas) return "it is no move within an IOAS";
    const std::size_t d = *index_of(s.device);
    if (describe(d)[DeviceQ::owner] != to->second.what[HwptQ::owner]) return "a replace across owners (H3)";
    if (const std::string fault = refusal(d, to->second.what); !fault.empty()) return fault;
    if (!has_domain_id(d, s.hwpt)) return "the unit has no domain id left";
    const std::string left = home->second;
    for (const std::size_t member : members(d)) {
      const auto moved = now_.home.find(host_.devices[member].id);
      if (moved != now_.home.end()) moved->second = s.hwpt;
    }
    drop_if_automatic(left);
    return "";
  }

  std::string detach(const Step& s) {
    if (now_.access.erase(s.device) == 1) return "";
    const auto home = now_.home.find(s.device);
    if (home == now_.home.end()) return fmt::format("`{}` is not attached", s.device);
    const std::string left = home->second;
    now_.home.erase(home);
    drop_if_automatic(left);
    return "";
  }

  void drop_if_automatic(const std::string& id) {
    const bool used = std::ranges::any_of(now_.home, [&](const auto& h) { return h.second == id; });
    if (!now_.hwpts.at(id).automatic || used) return;
    std::erase(now_.spaces.at(now_.hwpts.at(id).ioas).made, id);
    now_.hwpts.erase(id);
  }

  // ------------------------------------------------------------------------------------------- type1's containers

  std::string join_container(const Step& s) {
    const auto d = index_of(s.device);
    if (!d || !now_.spaces.contains(s.ioas)) return "there is nothing to attach";
    if (attached(s.device)) return fmt::format("`{}` is attached already", s.device);
    if (vm_of_.contains(s.device) && !now_.bound.contains(s.device)) return fmt::format("`{}` is not open", s.device);
    std::string landing;
    for (const std::size_t member : members(*d)) {
      const auto home = now_.home.find(host_.devices[member].id);
      if (home != now_.home.end()) landing = home->second;
    }
    if (landing.empty()) {
      if (const std::string fault = misfit_of_group(*d, now_.spaces.at(s.ioas)); !fault.empty()) return fault;
      landing = newest_that_takes(*d, now_.spaces.at(s.ioas));
    }
    if (landing.empty()) {
      if (const std::string fault = open_domain(s, *d); !fault.empty()) return fault;
      landing = s.hwpt;
    }
    if (landing != s.hwpt) return fmt::format("type1 puts it into `{}`", landing);
    if (now_.hwpts.at(landing).ioas != s.ioas) return "its group is in another container";
    if (!has_domain_id(*d, landing)) return "the unit has no domain id left";
    now_.home[s.device] = landing;
    return "";
  }

  HwptQuantities own_domain(std::size_t device) const { return law_.allocate(describe(members(device).front()), 0); }

  // What is asked before anything is shared: regions of all members, and the aperture of the group's own domain.
  std::string misfit_of_group(std::size_t device, const RunningSpace& space) const {
    const HwptQuantities own = own_domain(device);
    const DeviceQuantities first = describe(members(device).front());
    const VmQuantities nothing;
    if (const Rule* rule = scenes_.statutes.broken(Phase::allocation, {&own, &first, &nothing})) {
      return fmt::format("{}: its own domain cannot be made", rule->name);
    }
    const Range aperture{own[HwptQ::aperture_start], own[HwptQ::aperture_last]};
    for (const MemoryRange& m : space.mapped) {
      if (!aperture.contains(m.gpa)) return "what is mapped is outside the aperture of its own domain";
      for (const std::size_t member : members(device)) {
        for (const ReservedRegion& region : regions(host_.devices[member].id)) {
          if (region.range.overlaps(m.gpa)) return "a region of its group lies over what is mapped";
        }
      }
    }
    return "";
  }

  std::string newest_that_takes(std::size_t device, const RunningSpace& space) const {
    const VmQuantities nothing;
    for (auto id = space.made.rbegin(); id != space.made.rend(); ++id) {
      const HwptQuantities& what = now_.hwpts.at(*id).what;
      const bool takes = std::ranges::all_of(members(device), [&](std::size_t member) {
        const DeviceQuantities q = describe(member);
        return scenes_.statutes.broken_in_linux(Phase::attach, {&what, &q, &nothing}) == nullptr;
      });
      if (takes) return *id;
    }
    return "";
  }

  std::string open_domain(const Step& s, std::size_t device) {
    const HwptQuantities own = own_domain(device);
    if (now_.hwpts.contains(s.hwpt)) return fmt::format("type1 makes another domain than `{}` for it", s.hwpt);
    if (const std::string fault = misfit(own, now_.spaces.at(s.ioas)); !fault.empty()) return fault;
    now_.hwpts[s.hwpt] = {s.ioas, own, true, device};
    now_.spaces.at(s.ioas).made.push_back(s.hwpt);
    return "";
  }

  std::string leave_container(const Step& s) {
    const auto home = now_.home.find(s.device);
    const std::string ioas = home == now_.home.end() ? "" : now_.hwpts.at(home->second).ioas;
    if (std::string fault = detach(s); !fault.empty()) return fault;
    const RunningSpace& space = now_.spaces.at(ioas);
    return space.made.empty() && !space.mapped.empty() ? "the last group takes the mappings with it" : "";
  }

  std::string misfit_for_domains(const Step& s) const {
    std::vector<HwptQuantities> domains;
    for (const auto& [id, h] : now_.hwpts) {
      if (h.ioas == s.ioas) domains.push_back(h.what);
    }
    if (domains.empty()) return "nobody is in the container";
    const std::uint64_t common = common_pages(scenes_, domains);
    if (common == 0) return "the domains have no page size in common";
    return misaligned(s.iova, common & (~common + 1)) ? "it is not aligned for all domains" : "";
  }

  std::string map(const Step& s) {
    const auto space = now_.spaces.find(s.ioas);
    if (space == now_.spaces.end()) return fmt::format("there is no `{}`", s.ioas);
    if (in_containers()) {
      if (const std::string fault = misfit_for_domains(s); !fault.empty()) return fault;
    } else if (!covers(merged(space->second.allowed), s.iova)) {
      return "it is not allowed";
    }
    for (const MemoryRange& m : space->second.mapped) {
      if (m.gpa.overlaps(s.iova)) return "something is mapped there";
    }
    for (const auto& [id, h] : now_.hwpts) {
      if (h.ioas != s.ioas) continue;
      if (misaligned(s.iova, h.what[HwptQ::smallest_page])) return fmt::format("it is not aligned for `{}`", id);
      if (!s.writeable && h.what[HwptQ::takes_read_only] == 0) return fmt::format("`{}` holds nothing read-only", id);
    }
    const bool pinned = std::ranges::any_of(now_.access, [&](const auto& a) { return a.second == s.ioas; });
    if (pinned && misaligned(s.iova, scenes_.kernel_page())) return "it is not aligned for a mediated device";
    space->second.mapped.push_back({s.iova, s.writeable ? Access::read_write : Access::read_only});
    return "";
  }

  std::string unmap(const Step& s) {
    const auto space = now_.spaces.find(s.ioas);
    if (space == now_.spaces.end()) return fmt::format("there is no `{}`", s.ioas);
    auto& mapped = space->second.mapped;
    const auto it = std::ranges::find(mapped, s.iova, &MemoryRange::gpa);
    if (it == mapped.end()) return "nothing is mapped so";
    mapped.erase(it);
    return "";
  }

  // ------------------------------------------------------------------------------------------- the end

  void compare() {
    const auto same = [&](bool equal, std::string_view what) {
      if (!equal) object(obligation::target_reached, fmt::format("{} are not those of the target", what));
    };
    same(now_.bound == target_.bound, "the bound devices");
    same(now_.registered == target_.registered, "the files with KVM");
    same(now_.home == target_.home, "the places of the devices");
    same(now_.access == target_.access, "the mediated devices");
    same(now_.hwpts == target_.hwpts, "the HWPTs");
    const auto made = [](const RunningWorld& world) {
      std::map<std::string, std::vector<std::string>> order;
      for (const auto& [id, space] : world.spaces) order[id] = space.made;
      return order;
    };
    same(made(now_) == made(target_), "the order of the domains");
    same(sorted_spaces(now_) == sorted_spaces(target_), "the address spaces");
  }

  static std::map<std::string, std::pair<Intervals, std::vector<MemoryRange>>> sorted_spaces(
      const RunningWorld& world) {
    std::map<std::string, std::pair<Intervals, std::vector<MemoryRange>>> spaces;
    for (const auto& [id, space] : world.spaces) {
      auto& [allowed, mapped] = spaces[id];
      allowed = merged(space.allowed);
      mapped = space.mapped;
      std::ranges::sort(mapped);
    }
    return spaces;
  }

  const Law& law_;
  const Host& host_;
  const Policy& policy_;
  World scenes_;
  RunningWorld now_, target_;
  std::map<std::string, std::string> vm_of_;
  std::map<std::uint32_t, std::vector<std::size_t>> groups_;
  Judgement judgement_;
};

}  // namespace

}  // namespace check

Judgement check_transition(const Plan& from, const Plan& to, const std::vector<Step>& steps, const Request& request,
                           const Law& law) {
  return check::Replay(from, to, request, law).run(steps);
}

}  // namespace ioplan

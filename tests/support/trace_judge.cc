#include "tests/support/trace_judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "engine/base/log2.h"
#include "tests/support/oracle_kernel.h"

namespace ioplan::trace_judge {

namespace {

using oracle::Layout;
using oracle::RunningHwpt;
using oracle::Space;
using oracle::Table;

// --------------------------------------------------------------------------------------------------- ranges by hand

bool touch(const Range& a, const Range& b) { return !(a.last < b.start || b.last < a.start); }

bool any_touch(const std::vector<Range>& ranges, const Range& r) {
  return std::ranges::any_of(ranges, [&](const Range& other) { return touch(other, r); });
}

// Is every address of `r` in some of the ranges?
bool covered(const Range& r, std::vector<Range> ranges) {
  std::ranges::sort(ranges);
  std::uint64_t next = r.start;
  for (const Range& other : ranges) {
    if (other.start > next) return false;
    if (other.last >= r.last) return true;
    if (other.last >= next) next = other.last + 1;
  }
  return false;
}

// Sorted, with neighbours and overlaps made one.
std::vector<Range> joined(std::vector<Range> ranges) {
  std::ranges::sort(ranges);
  std::vector<Range> out;
  for (const Range& r : ranges) {
    const bool continues = !out.empty() && (out.back().last == ~std::uint64_t{0} || r.start <= out.back().last + 1);
    if (continues) {
      out.back().last = std::max(out.back().last, r.last);
    } else {
      out.push_back(r);
    }
  }
  return out;
}

bool multiple(const Range& r, std::uint64_t of) { return r.start % of == 0 && (r.last + 1) % of == 0; }

std::string text(const Range& r) { return fmt::format("{:#x}-{:#x}", r.start, r.last); }

// -------------------------------------------------------------------------------------------------------- the world

struct Object {  // a HWPT
  std::string ioas;
  std::string allocator;
  std::optional<Table> table;
  bool automatic = false;
  std::set<std::string> devices;
};

struct AddressSpace {
  std::string vm;
  std::vector<MemoryRange> mapped;
  std::vector<Range> allowed;
  std::set<std::string> accesses;
};

class World {
 public:
  World(const Request& request, const Layout& running, const Layout& target) : request_(request) {
    for (const Layout* layout : {&target, &running}) remember_owners(*layout);
    for (const Space& space : running.spaces) load(space);
  }

  std::vector<Violation> run(std::span<const TraceStep> steps, const Layout& target) {
    remember_allocators(steps);
    check_safety();
    for (const TraceStep& step : steps) {
      ++now_;
      take(step);
      check_safety();
    }
    compare(target);
    return std::move(violations_);
  }

 private:
  // ------------------------------------------------------------------------------------------------- small questions

  const Host& host() const { return request_.host; }

  // Null for a mediated device, and for a name that the host does not know.
  const Device* host_device(const std::string& id) const {
    const auto index = host().find_device(id);
    return index ? &host().device(*index) : nullptr;
  }

  std::vector<std::string> group_of(const std::string& id) const {
    std::vector<std::string> members;
    for (DeviceIndex d : oracle::group_of(host(), *host().find_device(id))) members.push_back(host().device(d).id);
    return members;
  }

  bool non_coherent(const std::string& id) const {
    const Device* device = host_device(id);
    return device == nullptr || !oracle::can_enforce(host(), *device);
  }

  // The HWPT in which the device is; null when it is in none.
  Object* hwpt_of(const std::string& id) {
    for (auto& [name, object] : hwpts_) {
      if (object.devices.contains(id)) return &object;
    }
    return nullptr;
  }

  AddressSpace* access_of(const std::string& id) {
    for (auto& [name, space] : ioases_) {
      if (space.accesses.contains(id)) return &space;
    }
    return nullptr;
  }

  bool attached(const std::string& id) { return hwpt_of(id) != nullptr || access_of(id) != nullptr; }

  std::vector<std::string> attached_of_group(const std::string& id) {
    std::vector<std::string> members;
    for (const std::string& m : group_of(id)) {
      if (hwpt_of(m) != nullptr) members.push_back(m);
    }
    return members;
  }

  // What devices that are attached within the IOAS reserve.
  std::vector<Range> reserved_in(const std::string& ioas) const {
    std::vector<Range> reserved;
    for (const auto& [name, object] : hwpts_) {
      if (object.ioas != ioas) continue;
      for (const std::string& d : object.devices) {
        const auto own = oracle::reserved_by(host(), *host_device(d));
        reserved.insert(reserved.end(), own.begin(), own.end());
      }
    }
    return reserved;
  }

  std::vector<const Object*> objects_in(const std::string& ioas) const {
    std::vector<const Object*> objects;
    for (const auto& [name, object] : hwpts_) {
      if (object.ioas == ioas) objects.push_back(&object);
    }
    return objects;
  }

  const VirtualMachine& machine(const std::string& vm) const {
    static const VirtualMachine kNone;
    const auto it = std::ranges::find(request_.vms, vm, &VirtualMachine::name);
    return it == request_.vms.end() ? kNone : *it;
  }

  bool kvm_non_coherent(const std::string& vm) const {
    return std::ranges::any_of(registered_,
                               [&](const auto& file) { return file.second == vm && non_coherent(file.first); });
  }

  // A stock of domain ids: one is drawn by each HWPT that has a group behind it, or, but for VT-d, by each that was
  // allocated. Every unit that is drawn on says how many are left; the least counts.
  struct Stock {
    std::uint64_t capacity = ~std::uint64_t{0};
    std::set<const Object*> users;
  };

  static bool draws_when_made(const Object& object) {
    return object.table && !object.automatic && object.table->driver != Driver::intel;
  }

  void draw_behind(std::map<std::string, Stock>& stocks, const Object& object, const std::string& device) const {
    const auto pool = oracle::pool_of(host(), *host_device(device)->unit, object.table->stage);
    if (!pool) return;
    Stock& stock = stocks[pool->key];
    stock.capacity = std::min(stock.capacity, pool->capacity);
    stock.users.insert(&object);
  }

  // What it draws if it takes the device's group.
  void draw(std::map<std::string, Stock>& stocks, const Object& object, const std::string& device) const {
    if (!object.table || draws_when_made(object)) return;
    for (const std::string& member : group_of(device)) draw_behind(stocks, object, member);
  }

  std::map<std::string, Stock> stocks_now() const {
    std::map<std::string, Stock> stocks;
    for (const auto& [name, object] : hwpts_) {
      if (draws_when_made(object)) draw_behind(stocks, object, object.allocator);
      for (const std::string& d : object.devices) draw(stocks, object, d);
    }
    return stocks;
  }

  // Would there be an id for the HWPT if it took the device's group, everybody else keeping theirs?
  bool id_left(const Object& taker, const std::string& device) const {
    std::map<std::string, Stock> stocks = stocks_now(), wanted;
    draw(stocks, taker, device);
    draw(wanted, taker, device);
    return std::ranges::all_of(wanted, [&](const auto& pool) {
      const Stock& stock = stocks.at(pool.first);
      return stock.users.size() <= stock.capacity;
    });
  }

  // ---------------------------------------------------------------------------------------------------- first world

  void remember_owners(const Layout& layout) {
    for (const Space& s : layout.spaces) {
      space_vm_[s.id] = s.vm;
      for (const std::string& d : bound_in(s)) owners_[d] = s.vm;
    }
  }

  // A device that only allocates belongs to the VM of the HWPT that it makes.
  void remember_allocators(std::span<const TraceStep> steps) {
    for (const TraceStep& s : steps) {
      if (s.act == Act::hwpt_alloc) owners_.emplace(s.device, space_vm_[s.ioas]);
    }
  }

  static std::set<std::string> bound_in(const Space& s) {
    const auto attached = oracle::attached_devices(s);
    std::set<std::string> bound(attached.begin(), attached.end());
    bound.insert(s.mediated.begin(), s.mediated.end());
    bound.insert(s.retained.begin(), s.retained.end());
    return bound;
  }

  void load(const Space& s) {
    for (const std::string& d : bound_in(s)) {
      bound_.insert(d);
      registered_[d] = s.vm;
    }
    AddressSpace& space = ioases_[s.id];
    space = {s.vm, s.memory, s.allowed, {s.mediated.begin(), s.mediated.end()}};
    for (const RunningHwpt& h : s.hwpts) hwpts_[h.id] = object_of(s, h);
  }

  Object object_of(const Space& s, const RunningHwpt& h) const {
    Object object;
    object.ioas = s.id;
    object.allocator = h.allocator;
    if (const auto allocator = host().find_device(h.allocator))
      object.table = oracle::allocate(host(), *allocator, h.flags);
    object.automatic = h.automatic;
    object.devices.insert(h.devices.begin(), h.devices.end());
    return object;
  }

  // ---------------------------------------------------------------------------------------------------------- safety

  void say(std::string obligation, std::string sentence) {
    violations_.push_back({now_, std::move(obligation), std::move(sentence)});
  }

  // A step's requirement.
  bool require(bool holds, const TraceStep& step, const char* what, std::string sentence) {
    if (!holds) say(fmt::format("{}.{}", kActNames[static_cast<std::size_t>(step.act)], what), std::move(sentence));
    return holds;
  }

  void check_safety() {
    for (const auto& [name, object] : hwpts_) check_coherency(name, object);
    for (const auto& [name, space] : ioases_) {
      if (!space.accesses.empty() && !kvm_non_coherent(space.vm)) {
        say("S1", fmt::format("{} has an access while KVM is coherent", *space.accesses.begin()));
      }
      if (!space.accesses.empty()) check_required_policy(*space.accesses.begin());
      check_mappings(name, space);
    }
  }

  void check_coherency(const std::string& name, const Object& object) {
    const bool enforces = object.table && object.table->enforces;
    for (const std::string& d : object.devices) {
      if (!enforces && !kvm_non_coherent(ioases_.at(object.ioas).vm)) {
        say("S1", fmt::format("{} is in {}, which does not enforce coherency, while KVM is coherent", d, name));
      }
      if (!enforces && !non_coherent(d) && request_.policy.coherency != CoherencyPolicy::safe) {
        say("S2", fmt::format("{} could be enforced, but is in {}", d, name));
      }
      check_required_policy(d);
    }
  }

  void check_required_policy(const std::string& d) {
    if (request_.policy.coherency == CoherencyPolicy::required && non_coherent(d)) {
      say("S2", fmt::format("{} is not coherent", d));
    }
  }

  void check_mappings(const std::string& name, const AddressSpace& space) {
    const auto reserved = reserved_in(name);
    for (const MemoryRange& m : space.mapped) {
      if (any_touch(reserved, m.gpa)) say("S3", fmt::format("{} is mapped under a reserved region", text(m.gpa)));
      if (!covered(m.gpa, space.allowed)) say("S3", fmt::format("{} is mapped but not allowed", text(m.gpa)));
      for (const Object* object : objects_in(name)) {
        if (object->table && !covered(m.gpa, {object->table->aperture})) {
          say("S3", fmt::format("{} is mapped outside an aperture", text(m.gpa)));
        }
      }
    }
  }

  // ----------------------------------------------------------------------------------------------------------- steps

  void take(const TraceStep& s) {
    switch (s.act) {
      case Act::kvm_file_add:
        return kvm_file_add(s);
      case Act::bind:
        return bind(s);
      case Act::ioas_alloc:
        return ioas_alloc(s);
      case Act::allow_iovas:
        return allow_iovas(s);
      case Act::hwpt_alloc:
        return hwpt_alloc(s);
      case Act::attach:
        return attach(s);
      case Act::attach_ioas:
        return attach_ioas(s);
      case Act::replace:
        return replace(s);
      case Act::detach:
        return detach(s);
      case Act::hwpt_destroy:
        return hwpt_destroy(s);
      case Act::kvm_file_del:
        return kvm_file_del(s);
      case Act::unbind:
        return unbind(s);
      case Act::map:
        return map(s);
      case Act::unmap:
        return unmap(s);
      case Act::ioas_destroy:
        return ioas_destroy(s);
    }
  }

  void kvm_file_add(const TraceStep& s) {
    require(!registered_.contains(s.device), s, "registered", s.device + " is registered already");
    registered_[s.device] = owners_[s.device];
  }

  void bind(const TraceStep& s) {
    require(!bound_.contains(s.device), s, "bound", s.device + " is bound already");
    bound_.insert(s.device);
    const Device* device = host_device(s.device);
    if (device == nullptr) {
      require(is_uuid(s.device), s, "known", s.device + " is not a device of the host");
      return;
    }
    const auto why = oracle::usable_refusals(host(), *device, machine(owners_[s.device]), request_.policy);
    if (!why.empty()) require(false, s, "usable", why.front());
    for (const std::string& member : group_of(s.device)) {
      const auto refusals = oracle::group_refusals(host(), *host_device(member));
      if (!refusals.empty()) require(false, s, "group", refusals.front());
      // KR 2.1: a group has one DMA owner.
      const bool other = bound_.contains(member) && owners_[member] != owners_[s.device];
      require(!other, s, "owner", fmt::format("{} of its group is bound for another VM", member));
    }
  }

  void ioas_alloc(const TraceStep& s) {
    require(!ioases_.contains(s.ioas), s, "exists", s.ioas + " is there already");
    ioases_[s.ioas] = {space_vm_[s.ioas], {}, {}, {}};
  }

  AddressSpace* find_space(const TraceStep& s) {
    const auto it = ioases_.find(s.ioas);
    require(it != ioases_.end(), s, "ioas", "there is no " + s.ioas);
    return it == ioases_.end() ? nullptr : &it->second;
  }

  void allow_iovas(const TraceStep& s) {
    AddressSpace* space = find_space(s);
    if (space == nullptr) return;
    const auto reserved = reserved_in(s.ioas);
    for (auto r = s.ranges.begin(); r != s.ranges.end(); ++r) {
      require(!any_touch(reserved, *r), s, "reserved", text(*r) + " is reserved by a device");
      require(std::none_of(std::next(r), s.ranges.end(), [&](const Range& o) { return touch(*r, o); }), s, "disjoint",
              text(*r) + " overlaps another range of the list");
      for (const Object* object : objects_in(s.ioas)) {
        require(!object->table || covered(*r, {object->table->aperture}), s, "aperture",
                text(*r) + " is outside a HWPT's aperture");
      }
    }
    for (const MemoryRange& m : space->mapped) {
      require(covered(m.gpa, s.ranges), s, "mapped", text(m.gpa) + " is mapped and would not be allowed");
    }
    space->allowed = s.ranges;
  }

  void hwpt_alloc(const TraceStep& s) {
    AddressSpace* space = find_space(s);
    require(bound_.contains(s.device), s, "bound", s.device + " is not bound");
    require(!hwpts_.contains(s.hwpt), s, "exists", s.hwpt + " is there already");
    const auto allocator = host().find_device(s.device);
    Object object;
    object.ioas = s.ioas;
    object.allocator = s.device;
    if (allocator) object.table = oracle::allocate(host(), *allocator, s.flags);
    require(object.table.has_value(), s, "allocation", fmt::format("{} cannot allocate flags {}", s.device, s.flags));
    if (object.table) {
      require(object.table->driver != Driver::smmuv2, s, "automatic", "HWPTs of an SMMUv2 are made by attaching");
      if (space != nullptr) check_joining(s, *object.table, *space);
    }
    if (space == nullptr) return;
    const Object& made = hwpts_[s.hwpt] = object;
    const auto overdrawn = [](const auto& stock) { return stock.second.users.size() > stock.second.capacity; };
    require(!draws_when_made(made) || std::ranges::none_of(stocks_now(), overdrawn), s, "ids", "no domain id is left");
  }

  // KR 2.6: what a HWPT finds in the IOAS that it joins.
  void check_joining(const TraceStep& s, const Table& table, const AddressSpace& space) {
    const std::uint64_t smallest = lowest_bit(table.page_sizes);
    require(smallest <= oracle::page_size(host()), s, "granule", "its smallest page is larger than the kernel's");
    for (const Range& r : space.allowed) {
      require(covered(r, {table.aperture}), s, "aperture", text(r) + " is allowed and outside its aperture");
    }
    for (const MemoryRange& m : space.mapped) {
      require(covered(m.gpa, {table.aperture}), s, "aperture", text(m.gpa) + " is mapped and outside its aperture");
      require(multiple(m.gpa, smallest), s, "alignment", text(m.gpa) + " is not aligned to its smallest page");
      require(oracle::takes_read_only(table) || m.access != Access::read_only, s, "read-only",
              text(m.gpa) + " is mapped read-only, which it cannot hold");
    }
  }

  // What attach and attach-ioas ask alike of a host device that joins the HWPT.
  void check_attach(const TraceStep& s, Object& object) {
    for (const std::string& member : attached_of_group(s.device)) {
      require(object.devices.contains(member), s, "group", member + " of its group is in another HWPT");
    }
    for (const std::string& member : group_of(s.device)) {
      require(object.table && oracle::attaches(host(), *object.table, *host_device(member)), s, "accepts",
              fmt::format("the HWPT does not accept {}", member));
    }
    const AddressSpace& space = ioases_.at(object.ioas);
    for (const Range& r : oracle::reserved_by(host(), *host_device(s.device))) {
      for (const MemoryRange& m : space.mapped) {
        require(!touch(r, m.gpa), s, "regions", fmt::format("{} lies over mapped {}", text(r), text(m.gpa)));
      }
      require(!any_touch(space.allowed, r), s, "regions", text(r) + " lies over what is allowed");
    }
    if (object.table) require(id_left(object, s.device), s, "ids", "no domain id is left");
  }

  bool check_free(const TraceStep& s) {
    require(bound_.contains(s.device), s, "bound", s.device + " is not bound");
    return require(!attached(s.device), s, "attached", s.device + " is attached already");
  }

  void attach(const TraceStep& s) {
    const bool free = check_free(s);
    const auto it = hwpts_.find(s.hwpt);
    if (!require(it != hwpts_.end(), s, "hwpt", "there is no " + s.hwpt)) return;
    if (!require(host_device(s.device) != nullptr, s, "known", s.device + " is not a device of the host")) return;
    require(!it->second.automatic, s, "automatic", s.hwpt + " is automatic");
    check_attach(s, it->second);
    if (free) it->second.devices.insert(s.device);
  }

  void attach_ioas(const TraceStep& s) {
    const bool free = check_free(s);
    AddressSpace* space = find_space(s);
    if (space == nullptr || !free) return;
    if (host_device(s.device) == nullptr) {
      for (const MemoryRange& m : space->mapped) {
        require(multiple(m.gpa, oracle::page_size(host())), s, "alignment",
                text(m.gpa) + " is not aligned to the kernel's page");
      }
      space->accesses.insert(s.device);
      return;
    }
    attach_to_automatic(s);
  }

  void attach_to_automatic(const TraceStep& s) {
    const DeviceIndex index = *host().find_device(s.device);
    const Device& device = host().device(index);
    if (!require(oracle::unit_of(host(), device).driver == Driver::smmuv2, s, "driver",
                 "plans attach to an IOAS behind an SMMUv2 only")) {
      return;
    }
    for (auto& [name, object] : hwpts_) {
      const bool of_its_unit = object.table && object.table->unit == *device.unit;
      if (object.ioas != s.ioas || !object.automatic || !of_its_unit) continue;
      check_attach(s, object);
      object.devices.insert(s.device);
      return;
    }
    make_automatic(s, index);
  }

  void make_automatic(const TraceStep& s, DeviceIndex index) {
    Object object;
    object.ioas = s.ioas;
    object.automatic = true;
    object.table = oracle::allocate(host(), index, 0);
    require(object.table.has_value(), s, "allocation", s.device + " cannot allocate");
    if (object.table) check_joining(s, *object.table, ioases_.at(s.ioas));
    Object& made = hwpts_["automatic of " + s.device] = object;
    check_attach(s, made);
    made.devices.insert(s.device);
  }

  void replace(const TraceStep& s) {
    Object* from = hwpt_of(s.device);
    const auto it = hwpts_.find(s.hwpt);
    if (!require(from != nullptr, s, "attached", s.device + " is in no HWPT")) return;
    if (!require(it != hwpts_.end(), s, "hwpt", "there is no " + s.hwpt)) return;
    Object& to = it->second;
    require(from != &to, s, "other", s.device + " is in that HWPT already");
    require(from->ioas == to.ioas, s, "ioas", "it is a HWPT of another IOAS");
    require(!to.automatic, s, "automatic", s.hwpt + " is automatic");
    check_replace(s, to);
    for (const std::string& member : attached_of_group(s.device)) {
      hwpt_of(member)->devices.erase(member);
      to.devices.insert(member);
    }
    drop_empty_automatic();
  }

  // S4: a replace that fails leaves a device blocked or crashes Linux (KR 2.4).
  void check_replace(const TraceStep& s, const Object& to) {
    for (const std::string& member : group_of(s.device)) {
      const Device& device = *host_device(member);
      const bool owned = to.table && oracle::same_owner(host(), *to.table, device);
      if (!owned) {
        say("S4", fmt::format("{} is replaced across owners", member));
      } else if (!oracle::attaches(host(), *to.table, device)) {
        say("S4", fmt::format("{} does not accept {}", s.hwpt, member));
      }
    }
    if (to.table) require(id_left(to, s.device), s, "ids", "no domain id is left while the old HWPT has its own");
  }

  void detach(const TraceStep& s) {
    if (!require(attached(s.device), s, "attached", s.device + " is attached to nothing")) return;
    if (AddressSpace* space = access_of(s.device)) space->accesses.erase(s.device);
    if (Object* object = hwpt_of(s.device)) object->devices.erase(s.device);
    drop_empty_automatic();
  }

  void drop_empty_automatic() {
    std::erase_if(hwpts_, [](const auto& h) { return h.second.automatic && h.second.devices.empty(); });
  }

  void hwpt_destroy(const TraceStep& s) {
    const auto it = hwpts_.find(s.hwpt);
    if (!require(it != hwpts_.end(), s, "hwpt", "there is no " + s.hwpt)) return;
    require(!it->second.automatic, s, "automatic", s.hwpt + " is automatic");
    if (require(it->second.devices.empty(), s, "empty", s.hwpt + " has devices")) hwpts_.erase(it);
  }

  void kvm_file_del(const TraceStep& s) {
    require(registered_.contains(s.device), s, "registered", s.device + " is not registered");
    require(!attached(s.device), s, "attached", s.device + " is still attached");
    registered_.erase(s.device);
  }

  void unbind(const TraceStep& s) {
    require(bound_.contains(s.device), s, "bound", s.device + " is not bound");
    require(!registered_.contains(s.device), s, "registered", s.device + " is still registered");
    if (require(!attached(s.device), s, "attached", s.device + " is still attached")) bound_.erase(s.device);
  }

  void map(const TraceStep& s) {
    AddressSpace* space = find_space(s);
    if (space == nullptr) return;
    require(covered(s.iova, space->allowed), s, "allowed", text(s.iova) + " is not allowed");
    require(!any_touch(reserved_in(s.ioas), s.iova), s, "reserved", text(s.iova) + " is reserved");
    require(!any_touch(oracle::ranges_of(space->mapped), s.iova), s, "mapped", text(s.iova) + " is mapped already");
    require(space->accesses.empty() || multiple(s.iova, oracle::page_size(host())), s, "alignment",
            text(s.iova) + " is not aligned to the kernel's page");
    for (const Object* object : objects_in(s.ioas)) {
      if (!object->table) continue;
      require(covered(s.iova, {object->table->aperture}), s, "aperture", text(s.iova) + " is outside an aperture");
      require(multiple(s.iova, lowest_bit(object->table->page_sizes)), s, "alignment",
              text(s.iova) + " is not aligned to the smallest page");
      require(s.writeable || oracle::takes_read_only(*object->table), s, "read-only",
              text(s.iova) + " is read-only, which a HWPT cannot hold");
    }
    space->mapped.push_back({s.iova, s.writeable ? Access::read_write : Access::read_only});
    std::ranges::sort(space->mapped);
  }

  // Whole ranges only; several at once are one range (KR 2.8).
  void unmap(const TraceStep& s) {
    AddressSpace* space = find_space(s);
    if (space == nullptr) return;
    std::vector<Range> inside;
    bool cut = false;
    for (const MemoryRange& m : space->mapped) {
      const bool whole = covered(m.gpa, {s.iova});
      if (whole) inside.push_back(m.gpa);
      cut = cut || (!whole && touch(m.gpa, s.iova));
    }
    require(!cut, s, "whole", text(s.iova) + " cuts what is mapped");
    require(covered(s.iova, inside), s, "mapped", text(s.iova) + " is not mapped");
    std::erase_if(space->mapped, [&](const MemoryRange& m) { return covered(m.gpa, {s.iova}); });
  }

  void ioas_destroy(const TraceStep& s) {
    AddressSpace* space = find_space(s);
    if (space == nullptr) return;
    require(space->mapped.empty(), s, "mapped", s.ioas + " has mappings");
    require(space->accesses.empty(), s, "access", s.ioas + " has accesses");
    if (require(objects_in(s.ioas).empty(), s, "hwpt", s.ioas + " has HWPTs")) ioases_.erase(s.ioas);
  }

  // ------------------------------------------------------------------------------------------------------ the target

  void compare(const Layout& target) {
    std::set<std::string> bound;
    for (const Space& s : target.spaces) bound.merge(bound_in(s));
    std::set<std::string> files;
    for (const auto& [device, vm] : registered_) files.insert(device);
    if (bound != bound_) say("target.bound", "not the target's devices are bound");
    if (files != bound) say("target.registered", "not the target's devices are registered");
    if (ioases_.size() != target.spaces.size()) say("target.ioas", "not the target's IOASes exist");
    for (const Space& s : target.spaces) compare(s);
  }

  void compare(const Space& s) {
    const auto it = ioases_.find(s.id);
    if (it == ioases_.end()) return say("target.ioas", "there is no " + s.id);
    const AddressSpace& space = it->second;
    std::vector<MemoryRange> memory = s.memory;
    std::ranges::sort(memory);
    if (space.mapped != memory) say("target.mapped", s.id + " maps something else");
    if (joined(space.allowed) != joined(s.allowed)) say("target.allowed", s.id + " allows something else");
    const std::set<std::string> mediated(s.mediated.begin(), s.mediated.end());
    if (space.accesses != mediated) say("target.access", s.id + " has other accesses");
    if (objects_in(s.id).size() != s.hwpts.size()) say("target.hwpts", s.id + " has other HWPTs");
    for (const RunningHwpt& h : s.hwpts) compare(s, h);
  }

  // An automatic HWPT is nobody's by name: it is found by its devices.
  const Object* object_for(const Space& s, const RunningHwpt& h) const {
    for (const auto& [name, object] : hwpts_) {
      if (object.ioas != s.id || object.automatic != h.automatic) continue;
      if (h.automatic ? !h.devices.empty() && object.devices.contains(h.devices.front()) : name == h.id) return &object;
    }
    return nullptr;
  }

  void compare(const Space& s, const RunningHwpt& h) {
    const Object* object = object_for(s, h);
    if (object == nullptr) return say("target.hwpts", "there is no " + h.id);
    const Object wanted = object_of(s, h);
    if (object->devices != wanted.devices) say("target.devices", h.id + " has other devices");
    const bool alike = object->table && wanted.table && oracle::equal_attributes(host(), *object->table, *wanted.table);
    if (!alike) say("target.attributes", h.id + " is another kind of HWPT");
  }

  const Request& request_;
  std::size_t now_ = 0;
  std::vector<Violation> violations_;
  std::set<std::string> bound_;
  std::map<std::string, std::string> registered_;  // device -> VM
  std::map<std::string, std::string> owners_;      // device -> VM for which it is bound
  std::map<std::string, std::string> space_vm_;    // IOAS -> VM
  std::map<std::string, AddressSpace> ioases_;
  std::map<std::string, Object> hwpts_;
};

}  // namespace

std::string to_text(const TraceStep& s) {
  std::string line(kActNames[static_cast<std::size_t>(s.act)]);
  for (const std::string* name : {&s.device, &s.ioas, &s.hwpt}) {
    if (!name->empty()) line += ' ' + *name;
  }
  if (s.act == Act::hwpt_alloc) line += fmt::format(" flags {}", s.flags);
  if (s.act == Act::map || s.act == Act::unmap) line += ' ' + text(s.iova) + (s.writeable ? "" : " read-only");
  for (const Range& r : s.ranges) line += ' ' + text(r);
  return line;
}

std::vector<TraceStep> trace_of(std::span<const Step> steps) {
  std::vector<TraceStep> trace;
  for (const Step& s : steps) {
    const std::string_view name = kStepKindNames.at(static_cast<std::size_t>(s.kind));
    const auto act = static_cast<Act>(std::ranges::find(kActNames, name) - kActNames.begin());
    trace.push_back({act, s.device, s.ioas, s.hwpt, s.flags, s.ranges, s.iova, s.writeable});
  }
  return trace;
}

std::string to_text(const Violation& v) { return fmt::format("step {}: {}: {}", v.step, v.obligation, v.sentence); }

std::string to_text(std::span<const Violation> violations) {
  std::string lines;
  for (const Violation& v : violations) lines += to_text(v) + '\n';
  return lines;
}

std::vector<Violation> judge_trace(const Request& request, const Layout& running, std::span<const TraceStep> steps,
                                   const Layout& target) {
  return World(request, running, target).run(steps, target);
}

bool names(std::span<const Violation> violations, std::string_view obligation) {
  return std::ranges::any_of(violations, [&](const Violation& v) { return v.obligation == obligation; });
}

}  // namespace ioplan::trace_judge

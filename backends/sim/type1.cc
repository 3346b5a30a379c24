#include "backends/sim/type1.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "backends/sim/machine_state.h"
#include "backends/sim/type1_iova.h"
#include "backends/sim/type1_mappings.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

struct JoinedDomain {
  std::uint32_t number = 0;
  std::unique_ptr<Domain> domain;
  std::vector<std::uint32_t> groups;

  bool enforces() const { return domain->attributes[HwptQ::enforce_cache_coherency] != 0; }
};

// The same domain operations, which are a driver's for a stage, and the same coherency.
bool may_share(const Domain& a, const Domain& b) {
  return a.attributes[HwptQ::owner] == b.attributes[HwptQ::owner] &&
         a.attributes[HwptQ::stage] == b.attributes[HwptQ::stage] &&
         a.attributes[HwptQ::enforce_cache_coherency] == b.attributes[HwptQ::enforce_cache_coherency];
}

}  // namespace

// struct vfio_container, and struct vfio_iommu while `started`.
struct Type1Container::State final : Participant {
  explicit State(Machine::State& of)
      : machine(of), core(of.core), mappings(of.memory, of.memlock, of.failures) {
    machine.participants.push_back(this);
  }
  ~State() override {
    release();
    std::erase(machine.participants, this);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  Machine::State& machine;
  IommuCore& core;

  std::vector<std::uint32_t> groups;  // of the container, in the order of joining
  bool started = false;               // VFIO_SET_IOMMU was done
  std::vector<JoinedDomain> domains;  // oldest first
  std::uint32_t next_number = 0;
  std::uint64_t page_sizes = 0;
  Type1Iova iova;
  Type1Mappings mappings;

  bool in_a_container(const GroupState& group) const;  // this or another one
  bool holds(std::uint32_t group) const { return std::ranges::find(groups, group) != groups.end(); }

  Answer<void> join(GroupState& group);
  void leave(GroupState& group);
  void stop();

  std::vector<Domain*> all_domains() const;
  const JoinedDomain* domain_of(std::uint32_t group) const;
  std::uint64_t page() const { return lowest_bit(page_sizes); }
  void append_text(std::string& text) const override;

 private:
  Answer<Type1Iova> narrowed(const Domain& own, const GroupState& group) const;
  Answer<bool> shared(GroupState& group, Domain& own);
  Answer<void> settle(GroupState& group, std::unique_ptr<Domain>& own);
  bool enforceable(const GroupState& group) const;
  std::vector<ReservedRegion> regions_of(const GroupState& group) const;
  Answer<void> map_doorbell(Domain& own, const GroupState& group) const;
  void update_page_sizes();
  void widen();
  void release();
};

// ------------------------------------------------------------------------------------------------ a group joins or leaves

// vfio_iommu_type1_attach_group.
Answer<void> Type1Container::State::join(GroupState& group) {
  if (machine.failures.strikes()) return refuse(ENOMEM, "injected: no memory for a group");
  auto own = core.allocate_domain(group.members.front(), 0, Coherency::leave);
  if (!own) return tl::make_unexpected(own.error());
  Answer<void> joined = core.attach(group, **own);
  if (joined) {
    joined = settle(group, *own);
    if (!joined) core.detach(group);
  }
  if (*own) core.free_domain(std::move(*own));
  return joined;
}

// What follows once the group sits in its own domain. Takes `own` over when no other domain takes the group.
Answer<void> Type1Container::State::settle(GroupState& group, std::unique_ptr<Domain>& own) {
  Answer<Type1Iova> left = narrowed(*own, group);
  if (!left) return tl::make_unexpected(left.error());
  if (!core.isolated_msi(group)) return refuse(EPERM, "a device of the group has no isolated MSI");
  if (enforceable(group) && !own->enforce_cache_coherency(machine.tables)) return refuse(ENOMEM, "no memory for a page table's root");
  const Answer<bool> found = shared(group, *own);
  if (!found) return tl::make_unexpected(found.error());
  if (!*found) {
    if (Answer<void> replayed = mappings.replay(*own); !replayed) return replayed;
    if (Answer<void> mapped = map_doorbell(*own, group); !mapped) return mapped;
    domains.push_back({next_number++, std::move(own), {group.number}});
    update_page_sizes();
  }
  iova = std::move(*left);
  return {};
}

// The container's IOVA with this domain's aperture and without this group's regions.
Answer<Type1Iova> Type1Container::State::narrowed(const Domain& own, const GroupState& group) const {
  const Range aperture = own.aperture();
  if (const auto hull = iova.hull()) {
    if (!hull->overlaps(aperture)) return refuse(EINVAL, "the domain's aperture misses the container's");
    const bool below = aperture.start > hull->start && mappings.overlaps({hull->start, aperture.start - 1});
    const bool above = aperture.last < hull->last && mappings.overlaps({aperture.last + 1, hull->last});
    if (below || above) return refuse(EINVAL, "something is mapped outside of the domain's aperture");
  }
  const std::vector<ReservedRegion> regions = regions_of(group);
  for (const ReservedRegion& region : regions) {
    if (region.type == ReservedType::direct_relaxable || !mappings.overlaps(region.range)) continue;
    return refuse(EINVAL, "something is mapped over a reserved region of the group");
  }
  Type1Iova left = iova;
  left.resize(aperture);
  if (!left.exclude(regions)) return refuse(EINVAL, "no IOVA is left");
  return left;
}

// The newest domain that may be shared and takes the group; the group is in `own` when none does.
Answer<bool> Type1Container::State::shared(GroupState& group, Domain& own) {
  for (auto candidate = domains.rbegin(); candidate != domains.rend(); ++candidate) {
    if (!may_share(*candidate->domain, own)) continue;
    core.detach(group);
    if (core.attach(group, *candidate->domain)) {
      candidate->groups.push_back(group.number);
      return true;
    }
    if (const Answer<void> back = core.attach(group, own); !back) return tl::make_unexpected(back.error());
  }
  return false;
}

bool Type1Container::State::enforceable(const GroupState& group) const {
  return std::ranges::all_of(group.members, [&](DeviceIndex d) {
    return core.device(d).quantities[DeviceQ::enforce_cache_coherency] != 0;
  });
}

std::vector<ReservedRegion> Type1Container::State::regions_of(const GroupState& group) const {
  std::vector<ReservedRegion> regions;
  for (DeviceIndex d : group.members) std::ranges::copy(core.device(d).regions, std::back_inserter(regions));
  return regions;
}

// Where devices of the group write their interrupts through the IOMMU (vfio_iommu_has_sw_msi, iommu_get_msi_cookie).
Answer<void> Type1Container::State::map_doorbell(Domain& own, const GroupState& group) const {
  std::optional<std::uint64_t> window;
  for (const ReservedRegion& region : regions_of(group)) {
    if (region.type == ReservedType::msi) return {};
    if (region.type == ReservedType::sw_msi) window = region.range.start;
  }
  if (!window) return {};
  const int error = own.table->map(*window, kDoorbellPage, core.kernel_page_size(), kRead | kWrite);
  if (error != 0) return refuse(error, "the doorbell cannot be mapped");
  own.doorbells.insert(*window);
  return {};
}

// vfio_update_pgsize_bitmap.
void Type1Container::State::update_page_sizes() {
  const std::uint64_t below_page = core.kernel_page_size() - 1;
  page_sizes = ~std::uint64_t{0};
  for (const JoinedDomain& d : domains) page_sizes &= d.domain->page_sizes();
  if ((page_sizes & below_page) != 0) page_sizes = (page_sizes & ~below_page) | core.kernel_page_size();
}

// vfio_iommu_type1_detach_group.
void Type1Container::State::leave(GroupState& group) {
  const auto in = std::ranges::find(domains, group.domain, [](const JoinedDomain& d) { return d.domain.get(); });
  core.detach(group);
  std::erase(in->groups, group.number);
  if (in->groups.empty()) {
    if (domains.size() == 1) mappings.unmap({0, ~std::uint64_t{0}}, all_domains());
    core.free_domain(std::move(in->domain));
    domains.erase(in);
    Range aperture{0, ~std::uint64_t{0}};
    for (const JoinedDomain& d : domains) {
      const Range own = d.domain->aperture();
      aperture = {std::max(aperture.start, own.start), std::min(aperture.last, own.last)};
    }
    iova.expand(aperture);
    update_page_sizes();
  }
  widen();
}

// vfio_iommu_resv_refresh: the regions of those that are left.
void Type1Container::State::widen() {
  Type1Iova fresh;
  fresh.resize(*iova.hull());
  for (const JoinedDomain& d : domains) {
    for (std::uint32_t g : d.groups) {
      if (!fresh.exclude(regions_of(*core.group(g)))) return;
    }
  }
  iova = std::move(fresh);
}

// The last group has gone.
void Type1Container::State::stop() {
  started = false;
  next_number = 0;
  iova.clear();
}

std::vector<Domain*> Type1Container::State::all_domains() const {
  std::vector<Domain*> all;
  for (const JoinedDomain& d : domains) all.push_back(d.domain.get());
  return all;
}

// Containers own DMA as the participants that they are.
bool Type1Container::State::in_a_container(const GroupState& group) const {
  return std::ranges::any_of(machine.participants, [&](const Participant* p) {
    return p == group.owner && dynamic_cast<const State*>(p) != nullptr;
  });
}

const JoinedDomain* Type1Container::State::domain_of(std::uint32_t group) const {
  if (!started || !holds(group)) return nullptr;
  return &*std::ranges::find(domains, core.group(group)->domain, [](const JoinedDomain& d) { return d.domain.get(); });
}

// vfio_iommu_type1_release.
void Type1Container::State::release() {
  mappings.unmap({0, ~std::uint64_t{0}}, all_domains());
  for (std::uint32_t g : groups) {
    core.detach(*core.group(g));
    core.release(*core.group(g));
  }
  for (JoinedDomain& d : domains) core.free_domain(std::move(d.domain));
}

void Type1Container::State::append_text(std::string& text) const {
  const auto out = std::back_inserter(text);
  fmt::format_to(out, "type1 container, {}, groups {}\n", started ? "started" : "idle", fmt::join(groups, " "));
  for (const JoinedDomain& d : domains) {
    fmt::format_to(out, "  domain {} by {} groups {}{} table bytes {}\n", d.number, machine.host.device(d.domain->allocator).id,
                   fmt::join(d.groups, " "), d.enforces() ? " cc" : "", d.domain->table->table_bytes());
  }
  for (const Range& r : iova.ranges()) fmt::format_to(out, "  usable {:#x}-{:#x}\n", r.start, r.last);
  mappings.append_text(text);
}

// --------------------------------------------------------------------------------------------------------------- calls

std::unique_ptr<Type1Container> Type1Container::open(Machine& machine) {
  return std::unique_ptr<Type1Container>(new Type1Container(std::make_unique<State>(*machine.state_)));
}

Type1Container::Type1Container(std::unique_ptr<State> state) : state_(std::move(state)) {}

Type1Container::~Type1Container() = default;

// vfio_group_ioctl_set_container, vfio_container_attach_group.
Answer<void> Type1Container::attach_group(std::uint32_t number) {
  GroupState* group = state_->core.group(number);
  const auto usable = [&](DeviceIndex d) {
    const DeviceQuantities& q = state_->core.device(d).quantities;
    return q[DeviceQ::capable_op] != 0 && q[DeviceQ::cache_coherency] != 0;
  };
  if (group == nullptr || std::ranges::none_of(group->members, usable)) {
    return refuse(ENODEV, "VFIO takes no device of such a group");
  }
  if (state_->in_a_container(*group)) return refuse(EINVAL, "the group has a container");
  if (Answer<void> claimed = state_->core.claim(*group, static_cast<const Participant*>(state_.get())); !claimed) return claimed;
  if (state_->started) {
    if (Answer<void> joined = state_->join(*group); !joined) {
      state_->core.release(*group);
      return joined;
    }
  }
  state_->groups.push_back(number);
  return {};
}

Answer<void> Type1Container::detach_group(std::uint32_t number) {
  if (!state_->holds(number)) return refuse(EINVAL, "the group is not in this container");
  GroupState& group = *state_->core.group(number);
  if (state_->started) state_->leave(group);
  state_->core.release(group);
  std::erase(state_->groups, number);
  if (state_->groups.empty()) state_->stop();
  return {};
}

// vfio_ioctl_set_iommu. The container's list has its newest group in front.
Answer<void> Type1Container::set_iommu() {
  if (state_->groups.empty()) return refuse(EINVAL, "a container without groups gets no back end");
  if (state_->started) return refuse(EINVAL, "the container has a back end");
  const std::vector<std::uint32_t>& groups = state_->groups;
  for (std::size_t i = groups.size(); i-- > 0;) {
    const Answer<void> joined = state_->join(*state_->core.group(groups[i]));
    if (joined) continue;
    for (std::size_t done = i + 1; done < groups.size(); ++done) state_->leave(*state_->core.group(groups[done]));
    state_->stop();
    return joined;
  }
  state_->started = true;
  return {};
}

bool Type1Container::check_extension(VfioExtension extension) const {
  if (extension != VfioExtension::dma_cc_iommu) return true;
  return state_->started && std::ranges::all_of(state_->domains, &JoinedDomain::enforces);
}

// vfio_dma_do_map.
Answer<void> Type1Container::map_dma(std::uint64_t iova, std::uint64_t user_va, std::uint64_t size, std::uint32_t flags) {
  if (!state_->started) return refuse(EINVAL, "the container has no back end");
  if ((flags & ~(kVfioMapRead | kVfioMapWrite)) != 0) return refuse(EINVAL, "unknown flags");
  if (size == 0) return refuse(EINVAL, "nothing to map");
  const Range range{iova, iova + (size - 1)};
  if (range.last < iova || user_va + (size - 1) < user_va) return refuse(EOVERFLOW, "the range passes the top");
  if (flags == 0) return refuse(EINVAL, "neither read nor write");
  if (((size | iova | user_va) & (state_->page() - 1)) != 0) return refuse(EINVAL, "not aligned to the smallest page");
  if (state_->mappings.overlaps(range)) return refuse(EEXIST, "something is mapped there");
  if (state_->mappings.count() >= kType1EntryLimit) return refuse(ENOSPC, "the entry limit is reached");
  if (!state_->iova.contains(range)) return refuse(EINVAL, "outside of the container's IOVA ranges");
  return state_->mappings.map(range, user_va, static_cast<std::uint8_t>(flags), state_->all_domains());
}

// vfio_dma_do_unmap.
Answer<std::uint64_t> Type1Container::unmap_dma(std::uint64_t iova, std::uint64_t size, std::uint32_t flags) {
  if (!state_->started) return refuse(EINVAL, "the container has no back end");
  if ((flags & ~kVfioUnmapAll) != 0) return refuse(EINVAL, "unknown flags");
  if (flags == kVfioUnmapAll) {
    if (iova != 0 || size != 0) return refuse(EINVAL, "all of it is from 0 and of size 0");
    return state_->mappings.unmap({0, ~std::uint64_t{0}}, state_->all_domains());
  }
  if (size == 0 || ((size | iova) & (state_->page() - 1)) != 0) return refuse(EINVAL, "not aligned to the smallest page");
  const Range range{iova, iova + (size - 1)};
  if (range.last < iova) return refuse(EOVERFLOW, "the range passes the top");
  if (state_->mappings.cuts(range)) return refuse(EINVAL, "the range cuts a mapping");
  return state_->mappings.unmap(range, state_->all_domains());
}

Answer<Type1Info> Type1Container::get_info() const {
  if (!state_->started) return refuse(EINVAL, "the container has no back end");
  const auto ranges = state_->iova.ranges();
  return Type1Info{state_->page_sizes,
                   {ranges.begin(), ranges.end()},
                   kType1EntryLimit - static_cast<std::uint32_t>(state_->mappings.count())};
}

// ---------------------------------------------------------------------------------------------------------- inspection

std::vector<Type1Domain> Type1Container::domains() const {
  std::vector<Type1Domain> result;
  for (auto d = state_->domains.rbegin(); d != state_->domains.rend(); ++d) {
    result.push_back({d->number, d->domain->allocator, d->domain->shape(), d->enforces(), d->groups});
  }
  return result;
}

std::optional<std::uint32_t> Type1Container::domain_of(std::uint32_t group) const {
  const JoinedDomain* domain = state_->domain_of(group);
  return domain == nullptr ? std::nullopt : std::optional(domain->number);
}

PageTable* Type1Container::table(std::uint32_t number) const {
  const auto found = std::ranges::find(state_->domains, number, &JoinedDomain::number);
  return found == state_->domains.end() ? nullptr : found->domain->table.get();
}

std::uint64_t Type1Container::pinned_bytes() const { return state_->mappings.bytes(); }

}  // namespace ioplan::sim

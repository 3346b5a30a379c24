#include "tests/support/iommufd_model.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "engine/base/log2.h"

namespace ioplan::slow {

namespace {

constexpr std::uint32_t kEveryMapFlag = sim::kMapFixedIova | sim::kMapWriteable | sim::kMapReadable;

Outcome no(int error) { return {error, 0}; }
Outcome yes(std::uint64_t value = 0) { return {0, value}; }

bool sum_overflows(std::uint64_t a, std::uint64_t b) { return a > kTop - b; }
std::uint64_t page_down(std::uint64_t v) { return v & ~(kPage - 1); }

// Checks that IOAS_MAP, IOAS_MAP_FILE and IOAS_COPY have in common, in front of everything else.
int check_map_arguments(std::uint32_t flags, std::initializer_list<std::uint64_t> numbers) {
  if ((flags & ~kEveryMapFlag) != 0) return EOPNOTSUPP;
  if (std::ranges::any_of(numbers, [](std::uint64_t n) { return n == kTop; })) return EOVERFLOW;
  if ((flags & (sim::kMapReadable | sim::kMapWriteable)) == 0) return EINVAL;
  return 0;
}

}  // namespace

// ------------------------------------------------------------------------------------------------- contexts, objects

bool Context::holds(ObjectId id) const {
  return devices.contains(id) || ioases.contains(id) || hwpts.contains(id) || accesses.contains(id) ||
         faults.contains(id);
}

bool Context::empty() const {
  return devices.empty() && ioases.empty() && hwpts.empty() && accesses.empty() && faults.empty();
}

ObjectId Context::lowest_free_id() const {
  ObjectId id = 1;
  while (holds(id)) ++id;
  return id;
}

Model::Model(const Host& host, const Law& law, const sim::MachineOptions& options, std::vector<Ram> ram)
    : host_(host), law_(law), options_(options), ram_(std::move(ram)) {
  for (std::uint32_t d = 0; d < host.devices.size(); ++d) {
    devices_.push_back(law.describe(host, DeviceIndex{d}));
    regions_.push_back(host.devices[d].reserved ? *host.devices[d].reserved : law.own_regions(host, DeviceIndex{d}));
  }
}

unsigned Model::open() {
  contexts_.emplace_back();
  return static_cast<unsigned>(contexts_.size() - 1);
}

void Model::close(unsigned context) {
  std::erase_if(walked_, [&](const auto& entry) { return entry.second.context == context; });
  contexts_[context] = Context{};
  contexts_[context].open = false;
}

std::vector<ObjectId> Model::objects(unsigned context) const {
  const Context& c = contexts_[context];
  std::vector<ObjectId> ids(c.faults.begin(), c.faults.end());
  for (const auto& [id, unused] : c.devices) ids.push_back(id);
  for (const auto& [id, unused] : c.ioases) ids.push_back(id);
  for (const auto& [id, unused] : c.hwpts) ids.push_back(id);
  for (const auto& [id, unused] : c.accesses) ids.push_back(id);
  std::ranges::sort(ids);
  return ids;
}

// iommufd_object_remove: only what nothing else uses can go. Drivers hold a user on devices and accesses.
Outcome Model::destroy(unsigned context, ObjectId id) {
  Context& c = contexts_[context];
  if (!c.holds(id)) return no(ENOENT);
  if (c.devices.contains(id) || c.accesses.contains(id)) return no(EBUSY);
  const auto hwpt_with = [&](auto&& uses) {
    return std::ranges::any_of(c.hwpts, [&](const auto& entry) { return uses(entry.second); });
  };
  if (c.ioases.contains(id)) {
    const auto accessed = [&](const auto& entry) { return entry.second.ioas == id; };
    if (std::ranges::any_of(c.accesses, accessed)) return no(EBUSY);
    if (hwpt_with([&](const Hwpt& h) { return h.ioas == id; })) return no(EBUSY);
    c.ioases.erase(id);
  } else if (c.faults.contains(id)) {
    if (hwpt_with([&](const Hwpt& h) { return h.fault == id; })) return no(EBUSY);
    c.faults.erase(id);
  } else {
    if (in_use(c, id)) return no(EBUSY);
    leave(c, id);
  }
  return yes();
}

Outcome Model::ioas_alloc(unsigned context) {
  Context& c = contexts_[context];
  const ObjectId id = c.lowest_free_id();
  c.ioases[id] = {};
  return yes(id);
}

Outcome Model::fault_queue_alloc(unsigned context) {
  Context& c = contexts_[context];
  const ObjectId id = c.lowest_free_id();
  c.faults.insert(id);
  return yes(id);
}

// iommufd_access_create and iommufd_access_attach in one (iopt_add_access).
Outcome Model::access_create(unsigned context, ObjectId ioas, bool pins) {
  Context& c = contexts_[context];
  if (!c.ioases.contains(ioas)) return no(ENOENT);
  const std::uint64_t wanted = pins ? kPage : 1;
  if (wanted > alignment(c, ioas)) {
    for (const Area& a : c.ioases[ioas].areas) {
      if (((a.iova | a.length | a.start_byte) & (wanted - 1)) != 0) return no(EADDRINUSE);
    }
  }
  const ObjectId id = c.lowest_free_id();
  c.accesses[id] = {ioas, wanted};
  return yes(id);
}

Outcome Model::access_destroy(unsigned context, ObjectId access) {
  return contexts_[context].accesses.erase(access) == 0 ? no(ENOENT) : yes();
}

// ------------------------------------------------------------------------------------------------------ address spaces

std::vector<Range> Model::iova_ranges(const Ioas& ioas) const {
  RangeSet free{{0, kTop}};
  for (const Reservation& r : ioas.reserved) free.subtract(r.range);
  return {free.ranges().begin(), free.ranges().end()};
}

std::uint64_t Model::alignment(const Context& c, ObjectId id) const {
  const Ioas& ioas = c.ioases.at(id);
  std::uint64_t most = ioas.huge_pages ? 1 : kPage;
  for (ObjectId h : ioas.hwpts) most = std::max(most, c.hwpts.at(h).is[HwptQ::smallest_page]);
  for (const auto& [unused, access] : c.accesses) {
    if (access.ioas == id) most = std::max(most, access.alignment);
  }
  return most;
}

// iommufd_ioas_load_iovas, iopt_set_allow_iova: a new list replaces the old one as a whole.
Outcome Model::ioas_allow_iovas(unsigned context, ObjectId id, std::span<const Range> ranges) {
  Context& c = contexts_[context];
  if (!c.ioases.contains(id)) return no(ENOENT);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].start >= ranges[i].last) return no(EINVAL);
    for (std::size_t j = 0; j < i; ++j) {
      if (ranges[i].overlaps(ranges[j])) return no(EINVAL);
    }
  }
  Ioas& ioas = c.ioases[id];
  for (const Range& allowed : ranges) {
    for (const Reservation& r : ioas.reserved) {
      if (r.range.overlaps(allowed)) return no(EADDRINUSE);
    }
  }
  ioas.allowed.assign(ranges.begin(), ranges.end());
  return yes();
}

Outcome Model::ioas_map(unsigned context, ObjectId ioas, std::uint32_t flags, std::uint64_t user_va,
                        std::uint64_t length, std::uint64_t iova) {
  Context& c = contexts_[context];
  if (const int error = check_map_arguments(flags, {iova, length}); error != 0) return no(error);
  if (!c.ioases.contains(ioas)) return no(ENOENT);
  if (sum_overflows(user_va, length)) return no(EOVERFLOW);
  if (length == 0 || length > kTop - kPage) return no(EINVAL);
  const bool writeable = (flags & sim::kMapWriteable) != 0;
  const auto pages = std::make_shared<const Pages>(Pages{false, -1, page_down(user_va), writeable});
  return map_pieces(c, ioas, {{pages, user_va % kPage, length}}, length, iova, flags);
}

Outcome Model::ioas_map_file(unsigned context, ObjectId ioas, std::uint32_t flags, int fd, std::uint64_t start,
                             std::uint64_t length, std::uint64_t iova) {
  Context& c = contexts_[context];
  if (const int error = check_map_arguments(flags, {iova, length}); error != 0) return no(error);
  if (!c.ioases.contains(ioas)) return no(ENOENT);
  if (length == 0) return no(EINVAL);
  if (sum_overflows(start, length - 1)) return no(EOVERFLOW);
  if (std::ranges::none_of(ram_, [&](const Ram& r) { return r.fd == fd; })) return no(EBADF);
  if (length > kTop - kPage) return no(EINVAL);
  const bool writeable = (flags & sim::kMapWriteable) != 0;
  const auto pages = std::make_shared<const Pages>(Pages{true, fd, page_down(start), writeable});
  return map_pieces(c, ioas, {{pages, start % kPage, length}}, length, iova, flags);
}

// iopt_get_pages: the source must be mapped without a hole; every area it touches becomes an area of the copy.
Outcome Model::ioas_copy(unsigned context, ObjectId dst, ObjectId src, std::uint32_t flags, std::uint64_t length,
                         std::uint64_t dst_iova, std::uint64_t src_iova) {
  Context& c = contexts_[context];
  if (const int error = check_map_arguments(flags, {length, src_iova, dst_iova}); error != 0) return no(error);
  if (!c.ioases.contains(src)) return no(ENOENT);
  if (length == 0) return no(EINVAL);
  if (sum_overflows(src_iova, length - 1)) return no(EOVERFLOW);
  std::vector<Piece> pieces;
  for (std::uint64_t done = 0; done < length;) {
    const Area* area = area_at(c.ioases[src], src_iova + done);
    if (area == nullptr) return no(ENOENT);
    const std::uint64_t offset = src_iova + done - area->iova;
    const std::uint64_t bytes = std::min(length - done, area->length - offset);
    pieces.push_back({area->pages, area->start_byte + offset, bytes});
    done += bytes;
  }
  if (!c.ioases.contains(dst)) return no(ENOENT);
  return map_pieces(c, dst, pieces, length, dst_iova, flags);
}

// iopt_map_pages: find the place, insert all areas, then pin and fill them one after the other; all or nothing.
Outcome Model::map_pieces(Context& c, ObjectId id, const std::vector<Piece>& pieces, std::uint64_t length,
                          std::uint64_t iova, std::uint32_t flags) {
  Ioas& ioas = c.ioases[id];
  const std::uint64_t aligned = alignment(c, id);
  if (length == 0 || (length & (aligned - 1)) != 0) return no(EINVAL);
  const std::uint64_t address = pieces.front().pages->base + pieces.front().start_byte;
  const int misplaced = (flags & sim::kMapFixedIova) != 0 ? check_iova(ioas, aligned, iova, length)
                                                          : choose_iova(ioas, aligned, address, length, iova);
  if (misplaced != 0) return no(misplaced);

  std::vector<Area> areas;
  for (const Piece& piece : pieces) {
    const std::uint64_t at = areas.empty() ? iova : areas.back().iova + areas.back().length;
    if ((flags & sim::kMapWriteable) != 0 && !piece.pages->writeable) return no(EPERM);
    if ((piece.start_byte % kPage & (aligned - 1)) != 0) return no(EINVAL);
    areas.push_back({at, piece.length, piece.pages, piece.start_byte, flags & ~sim::kMapFixedIova});
  }
  std::vector<Area> filled;
  for (const Area& area : areas) {
    if (ioas.hwpts.empty()) continue;
    if (const int error = pin(area); error != 0) return no(error);
    for (ObjectId h : ioas.hwpts) {
      if (const int error = accepts_area(c.hwpts.at(h), area); error != 0) return no(error);
    }
    filled.push_back(area);
    if (over_limit(c, filled)) return no(ENOMEM);
  }
  for (const Area& area : areas) {
    for (ObjectId h : ioas.hwpts) mapped(c.hwpts.at(h), ioas, area);
    ioas.areas.insert(std::ranges::upper_bound(ioas.areas, area.iova, {}, &Area::iova), area);
  }
  return yes(iova);
}

// iopt_check_iova
int Model::check_iova(const Ioas& ioas, std::uint64_t aligned, std::uint64_t iova, std::uint64_t length) const {
  if ((iova & (aligned - 1)) != 0) return EINVAL;
  if (sum_overflows(iova, length - 1)) return EOVERFLOW;
  const Range wanted{iova, iova + length - 1};
  if (std::ranges::any_of(ioas.reserved, [&](const Reservation& r) { return r.range.overlaps(wanted); })) return EINVAL;
  if (std::ranges::any_of(ioas.areas, [&](const Area& a) { return a.range().overlaps(wanted); })) return EEXIST;
  return 0;
}

// iopt_alloc_iova: lowest fit; a large page's alignment where the address has it; never IOVA 0's page nor the last one.
int Model::choose_iova(const Ioas& ioas, std::uint64_t aligned, std::uint64_t address, std::uint64_t length,
                       std::uint64_t& iova) const {
  constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;
  const Range usable{kPage, kTop - kPage};
  if (length == 0 || length >= kTop / 2) return EOVERFLOW;
  std::uint64_t wanted = std::bit_ceil(length);
  if (address != 0) wanted = std::min(wanted, lowest_bit(address));
  wanted = std::min(wanted, kHugePage);
  if (wanted < aligned) return EINVAL;
  const auto fits = [&](std::uint64_t& start, std::uint64_t last) {
    if (sum_overflows(start, wanted - 1)) return false;
    const std::uint64_t at = ((start + wanted - 1) & ~(wanted - 1)) | address % kPage;
    if (at >= last || last - at < length - 1) return false;
    start = at;
    return true;
  };
  RangeSet allowed;
  for (const Range& r : ioas.allowed) allowed.add(r);
  if (ioas.allowed.empty()) allowed.add(usable);
  for (Range span : allowed.ranges()) {
    if (!span.overlaps(usable)) continue;
    span = {std::max(span.start, usable.start), std::min(span.last, usable.last)};
    if (!fits(span.start, span.last)) continue;
    RangeSet free{span};
    for (const Reservation& r : ioas.reserved) free.subtract(r.range);
    for (const Area& a : ioas.areas) free.subtract(a.range());
    for (Range hole : free.ranges()) {
      if (!fits(hole.start, hole.last)) continue;
      iova = hole.start;
      return 0;
    }
  }
  return ENOSPC;
}

// iopt_unmap_iova_range: upwards, whole areas only. What lies in front of the area that would be cut is gone.
Outcome Model::ioas_unmap(unsigned context, ObjectId id, std::uint64_t iova, std::uint64_t length) {
  Context& c = contexts_[context];
  if (!c.ioases.contains(id)) return no(ENOENT);
  const bool everything = iova == 0 && length == kTop;
  if (!everything) {
    if (iova == kTop || length == kTop) return no(EOVERFLOW);
    if (length == 0) return no(EINVAL);
    if (sum_overflows(iova, length - 1)) return no(EOVERFLOW);
  }
  const Range wanted{iova, everything ? kTop : iova + length - 1};
  Ioas& ioas = c.ioases[id];
  std::uint64_t bytes = 0;
  while (true) {
    const auto area = std::ranges::find_if(ioas.areas, [&](const Area& a) { return a.range().overlaps(wanted); });
    if (area == ioas.areas.end()) break;
    if (!wanted.contains(area->range())) return no(ENOENT);
    for (ObjectId h : ioas.hwpts) unmapped(c.hwpts.at(h), *area);
    bytes += area->length;
    ioas.areas.erase(area);
  }
  if (bytes == 0 && !everything) return no(ENOENT);
  return yes(bytes);
}

const Area* Model::area_at(const Ioas& ioas, std::uint64_t iova) const {
  for (const Area& a : ioas.areas) {
    if (a.range().contains({iova, iova})) return &a;
  }
  return nullptr;
}

// -------------------------------------------------------------------------------------------------------------- memory

std::optional<std::uint64_t> Model::page_pa(const Pages& pages, std::uint64_t byte) const {
  const std::uint64_t at = pages.base + byte;
  for (const Ram& r : ram_) {
    if (pages.file ? r.fd != pages.fd || at >= r.size() : at < r.user_va || at - r.user_va >= r.size()) continue;
    const std::uint64_t offset = pages.file ? at : at - r.user_va;
    return r.page_pa[offset / kPage] + offset % kPage;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> Model::physical(const Area& area, std::uint64_t iova) const {
  return page_pa(*area.pages, area.start_byte + (iova - area.iova));
}

// pin_user_pages knows no such memory, or may not write to it; memfd_pin_folios knows no such part of the file.
int Model::pin(const Area& area) const {
  const Pages& pages = *area.pages;
  for (std::uint64_t byte = page_down(area.start_byte); byte < area.start_byte + area.length; byte += kPage) {
    if (!page_pa(pages, byte)) return pages.file ? EINVAL : EFAULT;
    const auto read_only = [&](const Ram& r) {
      return !r.writeable && pages.base + byte >= r.user_va && pages.base + byte - r.user_va < r.size();
    };
    if (!pages.file && pages.writeable && std::ranges::any_of(ram_, read_only)) return EFAULT;
  }
  return 0;
}

std::uint64_t Model::pinned_pages(const Context& c, const std::vector<Area>& also) const {
  std::map<const Pages*, std::set<std::uint64_t>> pinned;
  const auto add = [&](const Area& a) {
    for (std::uint64_t page = a.start_byte / kPage; page <= (a.start_byte + a.length - 1) / kPage; ++page) {
      pinned[a.pages.get()].insert(page);
    }
  };
  for (const auto& [unused, ioas] : c.ioases) {
    if (!ioas.hwpts.empty()) std::ranges::for_each(ioas.areas, add);
  }
  std::ranges::for_each(also, add);
  std::uint64_t pages = 0;
  for (const auto& [unused, set] : pinned) pages += set.size();
  return pages;
}

std::uint64_t Model::pinned_pages(unsigned context) const { return pinned_pages(contexts_[context], {}); }

// RLIMIT_MEMLOCK holds for the user's contexts together, and for those that charge the process together.
bool Model::over_limit(const Context& c, const std::vector<Area>& also) const {
  if (options_.memlock_limit == kTop) return false;
  std::uint64_t pages = 0;
  for (const Context& other : contexts_) {
    if (other.per_mm == c.per_mm) pages += pinned_pages(other, &other == &c ? also : std::vector<Area>{});
  }
  return pages > options_.memlock_limit / kPage;
}

// ------------------------------------------------------------------------------------------------------------- options

// iommufd_option_rlimit_mode, iommufd_ioas_option_huge_pages, iopt_disable_large_pages
Outcome Model::set_option(unsigned context, sim::Option option, ObjectId object, std::uint64_t value) {
  Context& c = contexts_[context];
  if (option == sim::Option::rlimit_mode) {
    if (object != 0) return no(EOPNOTSUPP);
    if (!options_.cap_sys_resource) return no(EPERM);
    if (!c.empty()) return no(EBUSY);
    if (value > 1) return no(EINVAL);
    c.per_mm = value == 1;
    return yes();
  }
  if (!c.ioases.contains(object)) return no(ENOENT);
  if (value > 1) return no(EINVAL);
  Ioas& ioas = c.ioases[object];
  if (value == 0 && ioas.huge_pages) {
    if (!ioas.hwpts.empty() && !ioas.areas.empty()) return no(EINVAL);
    const auto misaligned = [](const Area& a) { return ((a.iova | a.length | a.start_byte) & (kPage - 1)) != 0; };
    if (alignment(c, object) < kPage && std::ranges::any_of(ioas.areas, misaligned)) return no(EADDRINUSE);
  }
  ioas.huge_pages = value == 1;
  return yes();
}

Outcome Model::get_option(unsigned context, sim::Option option, ObjectId object) const {
  const Context& c = contexts_[context];
  if (option == sim::Option::rlimit_mode) return object != 0 ? no(EOPNOTSUPP) : yes(c.per_mm);
  if (!c.ioases.contains(object)) return no(ENOENT);
  return yes(c.ioases.at(object).huge_pages);
}

}  // namespace ioplan::slow

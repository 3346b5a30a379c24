// The IOAS calls. Mirrors drivers/iommu/iommufd/ioas.c, with the checks in its order.

#include <cerrno>

#include "backends/sim/context_state.h"

namespace ioplan::sim {

namespace {

constexpr std::uint64_t kLast = ~std::uint64_t{0};
constexpr std::string_view kNoIoas = "there is no such IOAS";

std::uint8_t protection_of(std::uint32_t flags) {
  return static_cast<std::uint8_t>(kCache | ((flags & kMapWriteable) != 0 ? kWrite : 0) |
                                   ((flags & kMapReadable) != 0 ? kRead : 0));
}

bool writeable(std::uint32_t flags) { return (flags & kMapWriteable) != 0; }

std::optional<std::uint64_t> fixed_of(std::uint32_t flags, std::uint64_t iova) {
  return (flags & kMapFixedIova) != 0 ? std::optional(iova) : std::nullopt;
}

// What every map asks first; `addresses` are those that may not be the last one.
Answer<void> check_map(std::uint32_t flags, std::initializer_list<std::uint64_t> addresses) {
  if ((flags & ~(kMapFixedIova | kMapWriteable | kMapReadable)) != 0) return refuse(EOPNOTSUPP, "unknown flags");
  for (std::uint64_t address : addresses) {
    if (address == kLast) return refuse(EOVERFLOW, "an address or length of 2^64-1");
  }
  if ((flags & (kMapWriteable | kMapReadable)) == 0) return refuse(EINVAL, "neither readable nor writeable");
  return {};
}

// iopt_alloc_pages.
bool bad_length(std::uint64_t length, std::uint64_t page_size) { return length == 0 || length > kLast - page_size; }

}  // namespace

Answer<ObjectId> Context::ioas_alloc() {
  if (state_->exhausted()) return refuse(ENOMEM, "injected: no memory for an object");
  return state_->add(std::make_unique<Ioas>(state_->machine.supply()));
}

Answer<void> Context::ioas_allow_iovas(ObjectId id, std::span<const Range> ranges) {
  Ioas* ioas = state_->find<Ioas>(id);
  return ioas == nullptr ? refuse(ENOENT, kNoIoas) : ioas->table.allow(ranges);
}

Answer<IovaRanges> Context::ioas_iova_ranges(ObjectId id) const {
  const Ioas* ioas = state_->find<Ioas>(id);
  if (ioas == nullptr) return refuse(ENOENT, kNoIoas);
  return IovaRanges{ioas->table.usable(), ioas->table.alignment()};
}

Answer<void> Context::ioas_add_reserved(ObjectId id, std::uint64_t start, std::uint64_t length) {
  if (length == 0) return refuse(EINVAL, "the length is 0");
  if (length - 1 > kLast - start) return refuse(EOVERFLOW, "the range leaves the address space");
  Ioas* ioas = state_->find<Ioas>(id);
  return ioas == nullptr ? refuse(ENOENT, kNoIoas) : ioas->table.reserve({start, start + length - 1}, nullptr);
}

Answer<std::uint64_t> Context::ioas_map(ObjectId id, std::uint32_t flags, std::uint64_t user_va, std::uint64_t length,
                                        std::uint64_t iova) {
  if (auto checked = check_map(flags, {iova, length}); !checked) return tl::make_unexpected(checked.error());
  State& s = *state_;
  Ioas* ioas = s.find<Ioas>(id);
  if (ioas == nullptr) return refuse(ENOENT, kNoIoas);
  if (length > kLast - user_va) return refuse(EOVERFLOW, "the memory leaves the address space");
  const PageSupply supply = s.machine.supply();
  if (bad_length(length, supply.page_size)) return refuse(EINVAL, "the length is 0 or too large");
  if (s.exhausted()) return refuse(ENOMEM, "injected: no memory for a list of pages");
  auto pages = std::make_shared<Pages>(supply, user_va, length, writeable(flags), s.account);
  const Slice all = pages->whole();
  return ioas->table.map({{std::move(pages), all}}, fixed_of(flags, iova), protection_of(flags));
}

Answer<std::uint64_t> Context::ioas_map_file(ObjectId id, std::uint32_t flags, int fd, std::uint64_t start,
                                             std::uint64_t length, std::uint64_t iova) {
  if (auto checked = check_map(flags, {iova, length}); !checked) return tl::make_unexpected(checked.error());
  State& s = *state_;
  Ioas* ioas = s.find<Ioas>(id);
  if (ioas == nullptr) return refuse(ENOENT, kNoIoas);
  if (length == 0) return refuse(EINVAL, "the length is 0");
  if (length - 1 > kLast - start) return refuse(EOVERFLOW, "the file's range leaves the address space");
  const PageSupply supply = s.machine.supply();
  const auto file = supply.memory.find_file(fd);
  if (!file) return refuse(EBADF, "there is no such file");
  if (bad_length(length, supply.page_size)) return refuse(EINVAL, "the length is too large");
  if (s.exhausted()) return refuse(ENOMEM, "injected: no memory for a list of pages");
  auto pages = std::make_shared<Pages>(supply, *file, start, length, writeable(flags), s.account);
  const Slice all = pages->whole();
  return ioas->table.map({{std::move(pages), all}}, fixed_of(flags, iova), protection_of(flags));
}

Answer<std::uint64_t> Context::ioas_copy(ObjectId dst, ObjectId src, std::uint32_t flags, std::uint64_t length,
                                         std::uint64_t dst_iova, std::uint64_t src_iova) {
  if (auto checked = check_map(flags, {length, src_iova, dst_iova}); !checked) return tl::make_unexpected(checked.error());
  const Ioas* from = state_->find<Ioas>(src);
  if (from == nullptr) return refuse(ENOENT, kNoIoas);
  auto pieces = from->table.pieces(src_iova, length);
  if (!pieces) return tl::make_unexpected(pieces.error());
  Ioas* to = state_->find<Ioas>(dst);
  if (to == nullptr) return refuse(ENOENT, kNoIoas);
  return to->table.map(std::move(*pieces), fixed_of(flags, dst_iova), protection_of(flags));
}

Answer<std::uint64_t> Context::ioas_unmap(ObjectId id, std::uint64_t iova, std::uint64_t length) {
  Ioas* ioas = state_->find<Ioas>(id);
  if (ioas == nullptr) return refuse(ENOENT, kNoIoas);
  if (iova == 0 && length == kLast) return ioas->table.unmap({0, kLast});
  if (iova == kLast || length == kLast) return refuse(EOVERFLOW, "an address or length of 2^64-1");
  if (length == 0) return refuse(EINVAL, "the length is 0");
  if (length - 1 > kLast - iova) return refuse(EOVERFLOW, "the range leaves the address space");
  auto unmapped = ioas->table.unmap({iova, iova + length - 1});
  if (unmapped && *unmapped == 0) return refuse(ENOENT, "nothing is mapped there");
  return unmapped;
}

std::vector<Range> Context::mapped(ObjectId id) const {
  const Ioas* ioas = state_->find<Ioas>(id);
  return ioas == nullptr ? std::vector<Range>{} : ioas->table.mapped();
}

}  // namespace ioplan::sim

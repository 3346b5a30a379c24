#include "backends/sim/type1_mappings.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include <fmt/format.h>

namespace ioplan::sim {

std::uint64_t Type1Mappings::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [iova, mapping] : mappings_) sum += mapping.size;
  return sum;
}

Type1Mappings::Mappings::const_iterator Type1Mappings::at_or_before(std::uint64_t iova) const {
  const auto after = mappings_.upper_bound(iova);
  return after == mappings_.begin() ? mappings_.end() : std::prev(after);
}

bool Type1Mappings::overlaps(const Range& iova) const {
  const auto last = at_or_before(iova.last);
  return last != mappings_.end() && last->first + (last->second.size - 1) >= iova.start;
}

bool Type1Mappings::cuts(const Range& iova) const {
  const auto front = at_or_before(iova.start), back = at_or_before(iova.last);
  const auto last_of = [](const auto& it) { return it->first + (it->second.size - 1); };
  if (front != mappings_.end() && front->first != iova.start && last_of(front) >= iova.start) return true;
  return back != mappings_.end() && last_of(back) > iova.last;
}

Answer<void> Type1Mappings::map(const Range& iova, std::uint64_t user_va, std::uint8_t protection,
                                std::span<Domain* const> domains) {
  if (failures_.strikes()) return refuse(ENOMEM, "injected: no memory for a mapping");
  Mapping mapping{user_va, 0, protection, {}};
  while (mapping.size == 0 || mapping.size - 1 < iova.extent()) {
    const std::uint64_t left = iova.extent() - mapping.size + 1;
    if (const Answer<void> mapped = map_piece(iova.start + mapping.size, left, mapping, domains); !mapped) {
      remove(iova.start, mapping, domains);
      return mapped;
    }
  }
  mappings_.emplace(iova.start, std::move(mapping));
  return {};
}

// The next stretch of at most `length` bytes that one allocation holds.
Answer<void> Type1Mappings::map_piece(std::uint64_t iova, std::uint64_t length, Mapping& mapping,
                                      std::span<Domain* const> domains) {
  const Answer<Pinned> piece = pin(mapping.user_va + mapping.size, length, mapping.protection);
  if (!piece) return tl::make_unexpected(piece.error());
  std::vector<Extent> extents;
  memory_.extents(piece->memory, piece->offset, piece->length, extents);
  for (std::size_t d = 0; d < domains.size(); ++d) {
    const int error = domains[d]->table->map(iova, extents, mapping.protection | kCache);
    if (error == 0) continue;
    for (std::size_t done = 0; done < d; ++done) domains[done]->table->unmap(iova, piece->length);
    unpin(*piece);
    return refuse(error, "a page table does not take the mapping");
  }
  mapping.pieces.push_back(*piece);
  mapping.size += piece->length;
  return {};
}

Answer<Type1Mappings::Pinned> Type1Mappings::pin(std::uint64_t user_va, std::uint64_t length, std::uint8_t protection) {
  const auto place = memory_.find(user_va, 1);
  if (!place) return refuse(EFAULT, "no memory at the user's address");
  if ((protection & kWrite) != 0 && !place->memory.writeable) return refuse(EFAULT, "the memory is not writeable");
  if (failures_.strikes()) return refuse(ENOMEM, "injected: no memory to pin");
  const Pinned piece{place->memory, place->offset, std::min(length, place->memory.size - place->offset)};
  if (!memlock_.charge(MemlockAccount::process, piece.length)) return refuse(ENOMEM, "RLIMIT_MEMLOCK exceeded");
  memory_.pin(piece.memory);
  return piece;
}

void Type1Mappings::unpin(const Pinned& piece) {
  memory_.unpin(piece.memory);
  memlock_.uncharge(MemlockAccount::process, piece.length);
}

void Type1Mappings::remove(std::uint64_t iova, const Mapping& mapping, std::span<Domain* const> domains) {
  for (Domain* domain : domains) {
    if (mapping.size != 0) domain->table->unmap(iova, mapping.size);
  }
  for (const Pinned& piece : mapping.pieces) unpin(piece);
}

std::uint64_t Type1Mappings::unmap(const Range& iova, std::span<Domain* const> domains) {
  std::uint64_t bytes = 0;
  auto it = mappings_.lower_bound(iova.start);
  while (it != mappings_.end() && it->first <= iova.last) {
    remove(it->first, it->second, domains);
    bytes += it->second.size;
    it = mappings_.erase(it);
  }
  return bytes;
}

Answer<void> Type1Mappings::replay(Domain& domain) const {
  std::vector<Extent> extents;
  for (const auto& [iova, mapping] : mappings_) {
    std::uint64_t done = 0;
    for (const Pinned& piece : mapping.pieces) {
      extents.clear();
      memory_.extents(piece.memory, piece.offset, piece.length, extents);
      const int error = domain.table->map(iova + done, extents, mapping.protection | kCache);
      if (error != 0) return refuse(error, "a new page table does not take what is mapped");
      done += piece.length;
    }
  }
  return {};
}

void Type1Mappings::append_text(std::string& text) const {
  for (const auto& [iova, m] : mappings_) {
    fmt::format_to(std::back_inserter(text), "  {:#x}+{:#x} {}{} from {:#x}\n", iova, m.size,
                   (m.protection & kRead) != 0 ? "r" : "", (m.protection & kWrite) != 0 ? "w" : "", m.user_va);
  }
}

}  // namespace ioplan::sim

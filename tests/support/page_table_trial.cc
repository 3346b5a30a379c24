#include "tests/support/page_table_trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan::sim {

namespace {

using Kind = TableOperation::Kind;

constexpr std::array<std::string_view, 7> kKindNames = {"map",       "unmap",      "translate", "dma_read",
                                                        "dma_write", "read_dirty", "compare"};
constexpr std::size_t kManyLeaves = 1500;     // of one neighbourhood; then it is cleared
constexpr std::size_t kMostLeavesOfAMap = 64;
constexpr unsigned kBitmapBits = 4096;

unsigned smallest_lg2(const PageTableShape& shape) {
  return static_cast<unsigned>(std::countr_zero(shape.page_sizes));
}

std::uint64_t align_down(std::uint64_t value, unsigned lg2) { return value & ~last_of_width(lg2); }

std::uint64_t total(std::span<const Extent> extents) {
  std::uint64_t bytes = 0;
  for (const Extent& e : extents) bytes += e.size;
  return bytes;
}

std::string_view errno_name(int error) {
  switch (error) {
    case 0: return "ok";
    case EINVAL: return "EINVAL";
    case ERANGE: return "ERANGE";
    case EADDRINUSE: return "EADDRINUSE";
    case EEXIST: return "EEXIST";
    case ENOMEM: return "ENOMEM";
    default: return "another errno";
  }
}

std::string pa_text(std::optional<std::uint64_t> pa) { return pa ? format_hex(*pa) : "nothing"; }

}  // namespace

std::string to_text(const TableOperation& op) {
  std::string text = fmt::format("{} iova {}", kKindNames[static_cast<std::size_t>(op.kind)], format_hex(op.iova));
  if (op.kind == Kind::unmap) text += fmt::format(" size {}", format_hex(op.size));
  if (op.kind == Kind::map) {
    text += fmt::format(" protection {} fail_nth {} extents", op.protection, op.fail_nth);
    for (const Extent& e : op.extents) text += fmt::format(" {}+{}", format_hex(e.pa), format_hex(e.size));
  }
  if (op.kind == Kind::read_dirty) {
    text += fmt::format(" size {} page_lg2 {} {}", format_hex(op.size), op.page_lg2,
                        op.mode == DirtyRead::clear ? "clear" : "keep");
  }
  return text;
}

bool has_room_for(const PageTableShape& shape, unsigned page_lg2) {
  const std::uint64_t first = align_down(shape.aperture.start + last_of_width(page_lg2), page_lg2);
  const std::uint64_t last = first + last_of_width(page_lg2);
  return first >= shape.aperture.start && last >= first && last <= shape.aperture.last;
}

// ------------------------------------------------------------------------------------------------------------- trial

TableTrial::TableTrial(const PageTableShape& shape)
    : shape_(shape), table_(PageTable::create(shape, arena_)), expected_(shape) {}

std::string TableTrial::apply(const TableOperation& op) {
  std::string difference;
  switch (op.kind) {
    case Kind::map: difference = map(op); break;
    case Kind::unmap: difference = unmap(op); break;
    case Kind::translate: difference = compare_page(op.iova); break;
    case Kind::dma_read: difference = dma(op, DmaAccess::read); break;
    case Kind::dma_write: difference = dma(op, DmaAccess::write); break;
    case Kind::read_dirty: difference = read_dirty(op); break;
    case Kind::compare: return compare_everything();
  }
  if (difference.empty() && expected_.leaves().size() < 128) difference = compare_memory();
  return difference;
}

std::string TableTrial::map(const TableOperation& op) {
  const int right = expected_.verdict(op.iova, op.extents, op.protection);
  arena_.fail_nth(op.fail_nth);
  const int error = op.extents.size() == 1
                        ? table_->map(op.iova, op.extents[0].pa, op.extents[0].size, op.protection)
                        : table_->map(op.iova, op.extents, op.protection);
  arena_.fail_nth(0);
  const bool may_allocate = right == 0 || right == EADDRINUSE || right == EEXIST;
  const bool out_of_memory = error == ENOMEM && op.fail_nth != 0 && may_allocate;
  if (error != right && !out_of_memory) return fmt::format("map: {}, not {}", errno_name(error), errno_name(right));
  count_verdict(op, error);
  if (error == 0) {
    for (const auto& [start, leaf] : expected_.split(op.iova, op.extents)) {
      ++hits_[fmt::format("page {}", leaf.size_lg2)];
      (void)start;
    }
    expected_.map(op.iova, op.extents, op.protection);
  }
  const std::uint64_t last = op.iova + (total(op.extents) - 1);
  const std::array<std::uint64_t, 4> places = {op.iova - 1, op.iova, last, last + 1};
  for (const std::uint64_t place : places) {
    if (std::string difference = compare_page(place); !difference.empty()) return difference;
  }
  visited_.push_back(op.iova);
  return {};
}

void TableTrial::count_verdict(const TableOperation& op, int error) {
  ++hits_[error == 0 ? "map" : std::string(errno_name(error))];
  if (error == ERANGE) {
    const std::uint64_t last = op.iova + (total(op.extents) - 1);
    const bool inside = last >= op.iova && shape_.aperture.contains({op.iova, last});
    ++hits_[inside ? "ERANGE physical" : "ERANGE aperture"];
  }
  if (error == 0 && op.extents.size() > 1) ++hits_["map of extents"];
}

std::string TableTrial::unmap(const TableOperation& op) {
  const std::uint64_t right = expected_.unmap(op.iova, op.size);
  const std::uint64_t done = table_->unmap(op.iova, op.size);
  if (done != right) return fmt::format("unmap: {}, not {} bytes", format_hex(done), format_hex(right));
  if (right == op.size) {
    ++hits_["unmap"];
  } else {
    const std::uint64_t stop = op.iova + right;  // 0 at the end of a space of 64 bits
    const bool hole = (right != 0 && stop == 0) || expected_.find(stop) == expected_.leaves().end();
    ++hits_[hole ? "unmap up to a hole" : "unmap up to a cut leaf"];
  }
  for (const std::uint64_t place : {op.iova - 1, op.iova, op.iova + right - 1, op.iova + right}) {
    if (std::string difference = compare_page(place); !difference.empty()) return difference;
  }
  return {};
}

std::string TableTrial::dma(const TableOperation& op, DmaAccess access) {
  if (!walks()) return compare_page(op.iova);
  const auto leaf = expected_.find(op.iova);
  const bool mapped = leaf != expected_.leaves().end();
  const bool write = access == DmaAccess::write;
  const bool allowed = mapped && (leaf->second.protection & (write ? kWrite : kRead)) != 0;
  const Translation t = walk(arena_, shape_, table_->root(), op.iova, access);
  if (t.fault.empty() != allowed) {
    return fmt::format("DMA {}: \"{}\", but the page is {}", write ? "write" : "read", t.fault,
                       allowed ? "accessible" : mapped ? "protected" : "not mapped");
  }
  if (!mapped) ++hits_["fault: not mapped"];
  if (mapped && !allowed) ++hits_[write ? "fault: write" : "fault: read"];
  if (allowed) {
    ++hits_["DMA"];
    if (t.pa != leaf->second.pa + (op.iova - leaf->first)) return "DMA goes to " + format_hex(t.pa);
    if (write && shape_.dirty_tracking) {
      if (!leaf->second.dirty) ++hits_["made dirty"];
      expected_.make_dirty(op.iova);
    }
  }
  return compare_page(op.iova);
}

std::string TableTrial::read_dirty(const TableOperation& op) {
  if (!shape_.dirty_tracking) return {};
  const Range range{op.iova, op.iova + (op.size - 1)};
  std::array<std::uint64_t, kBitmapBits / 64> right{}, found{};
  const std::uint64_t base = align_down(op.iova, op.page_lg2);
  const auto dirty_leaves = [&] {
    const FlatMap::Leaves& leaves = expected_.leaves();
    return std::count_if(leaves.begin(), leaves.end(), [](const auto& leaf) { return leaf.second.dirty; });
  };
  const auto before = dirty_leaves();
  expected_.read_dirty(range, op.mode, {base, op.page_lg2, right});
  table_->read_dirty(range, op.mode, {base, op.page_lg2, found});
  if (right != found) return "dirty bitmaps differ";
  if (op.mode == DirtyRead::clear) hits_["made clean"] += static_cast<std::uint64_t>(before - dirty_leaves());
  if (op.mode == DirtyRead::keep && right != decltype(right){}) ++hits_["dirty kept"];
  return compare_page(op.iova);
}

std::string TableTrial::compare_page(std::uint64_t iova) const {
  const auto leaf = expected_.find(iova);
  const bool mapped = leaf != expected_.leaves().end();
  const auto pa = expected_.iova_to_phys(iova);
  if (const auto found = table_->iova_to_phys(iova); found != pa) {
    return fmt::format("iova_to_phys({}): {}, not {}", format_hex(iova), pa_text(found), pa_text(pa));
  }
  if (!walks()) return {};
  const Translation t = probe(arena_, shape_, table_->root(), iova);
  const auto wrong = [&](std::string_view what, std::uint64_t found, std::uint64_t right) {
    return fmt::format("walk of {}: {} {}, not {}", format_hex(iova), what, format_hex(found), format_hex(right));
  };
  if (!mapped) return t.fault == "nothing is mapped" || t.fault == "the address is outside the table"
                          ? std::string()
                          : fmt::format("walk of {}: \"{}\" where nothing is mapped", format_hex(iova), t.fault);
  if (!t.fault.empty()) return fmt::format("walk of {}: {} at level {}", format_hex(iova), t.fault, t.fault_level);
  if (t.pa != *pa) return wrong("address", t.pa, *pa);
  if (t.page_size != pow2(leaf->second.size_lg2)) return wrong("page size", t.page_size, pow2(leaf->second.size_lg2));
  if (t.protection != leaf->second.protection) return wrong("protection", t.protection, leaf->second.protection);
  if (shape_.dirty_tracking && t.dirty != leaf->second.dirty) return wrong("dirty", t.dirty, leaf->second.dirty);
  return {};
}

std::string TableTrial::compare_memory() const {
  const std::uint64_t right = expected_.table_bytes();
  const std::uint64_t bytes = table_->table_bytes(), spare = table_->spare_bytes();
  if (walks() && table_->root().levels != expected_.levels()) {
    return fmt::format("{} levels, not {}", table_->root().levels, expected_.levels());
  }
  if (bytes != right) return fmt::format("{} bytes of tables, not {}", bytes, right);
  std::uint64_t most_spare = 0;
  for (unsigned level = 1; level <= expected_.levels(); ++level) most_spare += expected_.geometry().table_bytes(level);
  if (spare > most_spare) return fmt::format("{} bytes to spare, more than a table a level ({})", spare, most_spare);
  if (arena_.bytes_in_use() != bytes + spare) {
    return fmt::format("{} bytes taken from memory, not {} + {}", arena_.bytes_in_use(), bytes, spare);
  }
  return {};
}

// Every leaf at its ends and inside, and every small page around the places where something happened.
std::string TableTrial::compare_everything() {
  const std::uint64_t page = pow2(smallest_lg2(shape_));
  for (const auto& [start, leaf] : expected_.leaves()) {
    const std::uint64_t last = start + (pow2(leaf.size_lg2) - 1);
    const std::uint64_t middle = start + pow2(leaf.size_lg2) / 2;
    for (const std::uint64_t place : {start - 1, start, start + page, middle, last, last + 1}) {
      if (std::string difference = compare_page(place); !difference.empty()) return difference;
    }
  }
  constexpr std::uint64_t kAround = 24;
  std::uint64_t seen = 0;
  for (const std::uint64_t place : visited_) {
    if (place - seen < kAround * page) continue;
    for (std::uint64_t i = 0; i < 2 * kAround; ++i) {
      if (std::string difference = compare_page(place + (i - kAround) * page); !difference.empty()) return difference;
    }
    seen = place;
  }
  visited_.clear();
  ++hits_["compared everything"];
  return compare_memory();
}

// ------------------------------------------------------------------------------------------------------------ script

TableScript::TableScript(const PageTableShape& shape, std::uint64_t seed)
    : shape_(shape), geometry_(shape), random_(seed) {
  for (unsigned lg2 = 0; lg2 < 64; ++lg2) {
    if (bit(shape.page_sizes, lg2) && has_room_for(shape, lg2)) page_sizes_.push_back(lg2);
  }
}

TableOperation TableScript::next(const FlatMap& state) {
  if (!pending_.empty()) {
    TableOperation op = std::move(pending_.back());
    pending_.pop_back();
    return op;
  }
  if (operations_left_ == 0) {
    new_neighbourhood(state);
    return {.kind = Kind::compare, .extents = {}};
  }
  --operations_left_;
  const std::uint64_t dice = random(100);
  if (dice < 36) return make_map(state);
  if (dice < 56) return make_unmap(state);
  if (dice < 60) return {.kind = Kind::translate, .iova = some_address(state), .extents = {}};
  if (dice < 75) return {.kind = Kind::dma_read, .iova = some_address(state), .extents = {}};
  if (dice < 90) return {.kind = Kind::dma_write, .iova = some_address(state), .extents = {}};
  return make_read_dirty(state);
}

// Another place and other page sizes. Mostly the table is emptied first, so that large pages find room again.
void TableScript::new_neighbourhood(const FlatMap& state) {
  operations_left_ = 60 + static_cast<unsigned>(random(80));
  sizes_ = {page_sizes_.front(), page_sizes_[random(page_sizes_.size())], page_sizes_[random(page_sizes_.size())]};
  if (one_in(6)) sizes_[2] = page_sizes_.back();
  const bool few_places = shape_.aperture.extent() >> std::max(sizes_[1], sizes_[2]) < 32;
  if (!one_in(4) || few_places || state.leaves().size() > kManyLeaves) {
    for (const auto& [start, leaf] : state.leaves()) {
      pending_.push_back({.kind = Kind::unmap, .iova = start, .size = pow2(leaf.size_lg2), .extents = {}});
      const std::size_t n = pending_.size();
      if (n > 1 && pending_[n - 2].iova + pending_[n - 2].size == start) {
        pending_[n - 2].size += pow2(leaf.size_lg2);
        pending_.pop_back();
      }
    }
  }
  const unsigned level = 1 + static_cast<unsigned>(random(std::max(1U, shape_.levels)));
  const unsigned reach = std::min(63U, geometry_.reach_lg2(level));
  const std::uint64_t anywhere = shape_.aperture.start + random(shape_.aperture.extent());
  switch (random(6)) {
    case 0: centre_ = shape_.aperture.start; break;
    case 1: centre_ = shape_.aperture.last + 1; break;
    case 2: centre_ = anywhere; break;
    case 3: centre_ = shape_.aperture.start + pow2(reach); break;
    default: centre_ = align_down(anywhere, reach); break;
  }
}

unsigned TableScript::pick_size() { return sizes_[std::min<std::uint64_t>(2, random(5))]; }

std::uint64_t TableScript::address_near(unsigned size_lg2) {
  const std::uint64_t room = shape_.aperture.extent() >> size_lg2;
  if (room < 32) return align_down(shape_.aperture.start, size_lg2) + (random(room + 2) << size_lg2);
  const std::uint64_t steps = one_in(8) ? 600 : 12;
  return align_down(centre_, size_lg2) + ((random(2 * steps) - steps) << size_lg2);
}

std::uint64_t TableScript::some_address(const FlatMap& state) {
  if (state.leaves().empty() || one_in(8)) return address_near(pick_size()) + random(pow2(page_sizes_.front()));
  auto leaf = state.leaves().lower_bound(address_near(pick_size()));
  if (leaf == state.leaves().end()) leaf = state.leaves().begin();
  return leaf->first + random(pow2(leaf->second.size_lg2));
}

std::uint64_t TableScript::random_pa(unsigned size_lg2) {
  const std::uint64_t space = last_of_width(shape_.output_bits) >> size_lg2;
  // Few addresses, so that aligned ones continue each other now and then; and all of them.
  return (one_in(2) ? random_() & space : random(16) & space) << size_lg2;
}

std::uint8_t TableScript::random_protection() {
  constexpr std::array<std::uint8_t, 4> kKinds = {kRead | kWrite, kRead | kWrite, kRead, kWrite};
  std::uint8_t protection = kKinds[random(4)];
  if (shape_.force_writeable) protection |= kWrite;
  return static_cast<std::uint8_t>(protection | (one_in(2) ? kCache : 0));
}

// `bytes` of memory backed by pages of one size: one piece, pieces that continue each other, or scattered ones.
std::vector<Extent> TableScript::make_extents(unsigned size_lg2, std::uint64_t bytes) {
  const std::uint64_t small = pow2(page_sizes_.front());
  const std::uint64_t way = random(8);
  std::vector<Extent> extents;
  if (way < 3) return {{random_pa(size_lg2), bytes}};
  if (way < 5) {
    std::uint64_t pa = random_pa(size_lg2);
    while (bytes != 0) {
      const std::uint64_t piece = std::min(bytes, small * (1 + random(std::max<std::uint64_t>(1, bytes / small))));
      extents.push_back({pa, piece});
      pa += piece;
      bytes -= piece;
    }
    return extents;
  }
  const bool in_smallest_pages = way == 7 && bytes / small <= 256;
  const unsigned piece_lg2 = in_smallest_pages ? page_sizes_.front() : size_lg2;
  for (; bytes != 0; bytes -= pow2(piece_lg2)) extents.push_back({random_pa(piece_lg2), pow2(piece_lg2)});
  return extents;
}

// One page or a few, and only one when few would fit.
std::uint64_t TableScript::make_bytes(unsigned size_lg2) {
  const std::uint64_t room = shape_.aperture.extent() >> size_lg2;
  const std::uint64_t most = room < 32 ? 1 + random(2) : one_in(4) ? 20 : 4;
  return std::max(pow2(size_lg2), (1 + random(most)) << size_lg2);
}

TableOperation TableScript::make_map(const FlatMap& state) {
  TableOperation op{.kind = Kind::map, .extents = {}, .protection = random_protection()};
  if (one_in(300)) {
    one_in(2) ? make_long_run(op) : make_long_list(op);
  } else {
    const unsigned size = pick_size();
    op.iova = address_near(size);
    op.extents = make_extents(size, make_bytes(size));
    if (one_in(12)) op.extents[random(op.extents.size())].pa += pow2(page_sizes_.front());
    if (one_in(12)) op.iova += pow2(page_sizes_.front());
    if (one_in(12)) op.extents.back().size += pow2(page_sizes_.front()) * random(20);
    if (state.split(op.iova, op.extents, kMostLeavesOfAMap).size() == kMostLeavesOfAMap) {
      op.extents = {{random_pa(size), pow2(size)}};
      op.iova = address_near(size);
    }
  }
  if (one_in(14)) spoil(op);
  if (one_in(4)) op.fail_nth = 1 + random(3);
  return op;
}

// About as many of the smallest pages as a table holds, mostly misplaced so that none larger fits.
void TableScript::make_long_run(TableOperation& op) {
  const unsigned small = page_sizes_.front(), reach = std::min(40U, geometry_.reach_lg2(1));
  op.iova = address_near(small);
  if (one_in(2)) op.iova = align_down(op.iova, reach);
  const std::uint64_t pages = std::min(pow2(reach - small), std::uint64_t{512} << random(3));
  op.extents = {{random_pa(small) | (one_in(4) ? 0 : pow2(small)), pages << small}};
}

// One extent a page: scattered pages, and among them groups that make a larger page, or would but for two pages that
// have changed places.
void TableScript::make_long_list(TableOperation& op) {
  const unsigned small = page_sizes_.front();
  const unsigned larger = page_sizes_.size() > 1 ? std::min(page_sizes_[1], small + 9) : small + 4;
  const std::uint64_t group = pow2(larger - small);
  op.iova = align_down(address_near(larger), larger);
  for (std::uint64_t groups = 2 + random(3); groups != 0; --groups) {
    const std::size_t first = op.extents.size();
    const bool together = one_in(2);
    const std::uint64_t pa = random_pa(larger);
    for (std::uint64_t i = 0; i < group; ++i) {
      op.extents.push_back({together ? pa + (i << small) : random_pa(small), pow2(small)});
    }
    if (one_in(3)) std::swap(op.extents[first + random(group)], op.extents[first + random(group)]);
  }
  const std::uint64_t cut = random(group);
  op.extents.erase(op.extents.begin(), op.extents.begin() + static_cast<std::ptrdiff_t>(cut));
  op.iova += cut << small;
}

// One mistake of the caller.
void TableScript::spoil(TableOperation& op) {
  const std::uint64_t less_than_a_page = 1 + random(pow2(page_sizes_.front()) - 1);
  Extent& some = op.extents[random(op.extents.size())];
  switch (random(8)) {
    case 0: op.iova += less_than_a_page; break;
    case 1: some.pa += less_than_a_page; break;
    case 2: some.size += less_than_a_page; break;
    case 3: some.size = 0; break;
    case 4: op.protection = one_in(2) ? kCache : 0; break;
    case 5: op.iova = shape_.aperture.last - total(op.extents) + 1 + pow2(page_sizes_.front()); break;
    case 6:
      some.size += pow2(page_sizes_.front());
      some.pa = last_of_width(shape_.output_bits) - some.size + 1 + pow2(page_sizes_.front());
      break;
    default:
      if (shape_.force_writeable) op.protection = kRead;
      if (!shape_.force_writeable) op.extents.clear();
  }
}

TableOperation TableScript::make_unmap(const FlatMap& state) {
  TableOperation op{.kind = Kind::unmap, .extents = {}};
  if (state.leaves().empty() || one_in(6)) {
    const unsigned size = pick_size();
    op.iova = address_near(size);
    op.size = random(12) << size;
    return op;
  }
  const auto leaf = state.find(some_address(state));
  const auto [start, found] = leaf != state.leaves().end() ? *leaf : *state.leaves().begin();
  op.iova = start;
  op.size = pow2(found.size_lg2);
  if (one_in(3)) op.size <<= random(4);
  if (one_in(5)) op.size += pow2(page_sizes_.front());
  if (one_in(5)) op.size -= pow2(page_sizes_.front());
  if (one_in(10)) op.iova += pow2(page_sizes_.front());
  return op;
}

TableOperation TableScript::make_read_dirty(const FlatMap& state) {
  TableOperation op{.kind = Kind::read_dirty, .extents = {}, .mode = one_in(2) ? DirtyRead::keep : DirtyRead::clear};
  const std::uint64_t place = some_address(state);
  const auto leaf = state.find(place);
  const unsigned around = leaf != state.leaves().end() ? leaf->second.size_lg2 : page_sizes_.front();
  const unsigned least = std::max(page_sizes_.front(), around > 8 ? around - 8 : 0);
  op.page_lg2 = std::min(60U, least + (one_in(3) ? static_cast<unsigned>(random(4)) : 0));
  op.iova = align_down(align_down(place, around) - (random(3) << op.page_lg2), page_sizes_.front());
  const std::uint64_t most = (kBitmapBits - 1) * pow2(op.page_lg2) / pow2(page_sizes_.front());
  op.size = pow2(page_sizes_.front()) * (1 + random(one_in(2) ? std::min<std::uint64_t>(most, 64) : most));
  if (op.iova + (op.size - 1) < op.iova) op.iova = align_down(place, page_sizes_.front());
  if (op.iova + (op.size - 1) < op.iova) op.size = 0 - op.iova;
  return op;
}

// ------------------------------------------------------------------------------------------------------------ shrink

namespace {

bool fails(const PageTableShape& shape, std::span<const TableOperation> operations) {
  TableTrial trial(shape);
  for (const TableOperation& op : operations) {
    if (!trial.apply(op).empty()) return true;
  }
  return false;
}

}  // namespace

std::vector<TableOperation> shrink(const PageTableShape& shape, std::vector<TableOperation> operations, unsigned runs) {
  for (std::size_t part = operations.size() / 2; part > 0 && runs > 0; part /= 2) {
    for (std::size_t at = 0; at + part <= operations.size() && runs > 0;) {
      std::vector<TableOperation> fewer(operations.begin(), operations.begin() + static_cast<std::ptrdiff_t>(at));
      fewer.insert(fewer.end(), operations.begin() + static_cast<std::ptrdiff_t>(at + part), operations.end());
      --runs;
      if (fails(shape, fewer)) {
        operations = std::move(fewer);
      } else {
        at += part;
      }
    }
  }
  return operations;
}

}  // namespace ioplan::sim

#include "backends/sim/walker.h"

#include <atomic>
#include <optional>

#include "backends/sim/walk/amdv1.h"
#include "backends/sim/walk/arm_lpae.h"
#include "backends/sim/walk/entry.h"
#include "backends/sim/walk/riscv.h"
#include "backends/sim/walk/s390.h"
#include "backends/sim/walk/vtd_second_stage.h"
#include "backends/sim/walk/x86_64.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

using hardware::Entry;

Translation fault(std::string_view why, unsigned level) {
  Translation t;
  t.fault = why;
  t.fault_level = level;
  return t;
}

std::uint64_t sign_extend(std::uint64_t value, unsigned width) {
  const unsigned shift = 64 - width;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << shift) >> shift);
}

template <class Format>
bool translatable(const Format& format, std::uint64_t iova, unsigned levels) {
  const unsigned width = format.width(levels);
  return Format::sign_extended() ? sign_extend(iova, width) == iova : (iova & ~last_of_width(width)) == 0;
}

// One walk from the root to a page. `access` is nothing for a probe: no permission is asked for, no bit is set.
template <class Format>
class Walk {
 public:
  Walk(const Format& format, const TableArena& memory, std::optional<DmaAccess> access)
      : format_(format), memory_(memory), access_(access) {}

  Translation from(TableRoot root, std::uint64_t iova) {
    if (!translatable(format_, iova, root.levels)) return fault("the address is outside the table", root.levels);
    const std::uint64_t input = iova & last_of_width(format_.width(root.levels));
    std::uint64_t table = root.pa;
    unsigned level = root.levels;
    // The root's index is whatever is left of the address: concatenated roots have more entries than other tables.
    std::uint64_t index = input >> format_.entry_lg2(level);
    for (;;) {
      const Entry entry = read(table + 8 * index, level, input);
      if (entry.kind == Entry::Kind::fault) return fault(entry.why, level);
      if (entry.kind == Entry::Kind::page) return arrive(entry, level, table + 8 * index, input);
      table = entry.address;
      level = entry.next_level;
      index = input >> format_.entry_lg2(level) & last_of_width(format_.index_bits(level));
    }
  }

 private:
  // Reads the entry, checks what it allows, and sets its accessed and dirty bits. All in one exchange of the whole
  // entry: when it changed meanwhile, it is read again.
  Entry read(std::uint64_t at, unsigned level, std::uint64_t iova) {
    if (at > memory_.bytes() - 8) return Entry::fault("a table outside of memory");
    const auto slot = entry_at(at);
    std::uint64_t raw = slot.load(std::memory_order_acquire);
    for (;;) {
      const Entry entry = format_.decode(raw, level, iova);
      if (entry.kind == Entry::Kind::fault) return entry;
      if (entry.kind == Entry::Kind::page && !permitted(entry)) return Entry::fault(refusal());
      const std::uint64_t marked = access_ ? format_.marked(raw, entry, *access_) : raw;
      if (marked == raw || slot.compare_exchange_weak(raw, marked, std::memory_order_acq_rel)) {
        allowed_ &= entry.allows;
        return marked == raw ? entry : format_.decode(marked, level, iova);
      }
    }
  }

  Translation arrive(const Entry& page, unsigned level, std::uint64_t at, std::uint64_t iova) const {
    Translation t;
    t.pa = page.address + (iova & last_of_width(page.page_lg2));
    t.page_size = pow2(page.page_lg2);
    t.protection = static_cast<std::uint8_t>(allowed_ | (page.snooped ? kCache : 0));
    t.dirty = page.dirty || (page.group_lg2 != 0 && dirty_group(page, level, at, iova));
    return t;
  }

  // Hardware may mark any entry of a group: the page is dirty when one is.
  bool dirty_group(const Entry& page, unsigned level, std::uint64_t at, std::uint64_t iova) const {
    const std::uint64_t first = at & ~last_of_width(3 + page.group_lg2);
    const std::uint64_t start = iova & ~last_of_width(page.page_lg2);
    for (std::uint64_t i = 0; i < pow2(page.group_lg2); ++i) {
      const std::uint64_t raw = entry_at(first + 8 * i).load(std::memory_order_acquire);
      if (format_.decode(raw, level, start + (i << format_.entry_lg2(level))).dirty) return true;
    }
    return false;
  }

  bool permitted(const Entry& page) const {
    if (!access_) return true;
    return (allowed_ & page.allows & (*access_ == DmaAccess::write ? kWrite : kRead)) != 0;
  }

  std::string_view refusal() const {
    if (*access_ == DmaAccess::write) return "write to a page that is not writeable";
    return "read of a page that is not readable";
  }

  std::atomic_ref<std::uint64_t> entry_at(std::uint64_t pa) const {
    return std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(memory_.at(pa)));
  }

  const Format& format_;
  const TableArena& memory_;
  std::optional<DmaAccess> access_;
  std::uint8_t allowed_ = hardware::kReadWrite;  // by every entry so far
};

template <class Format>
Translation run(const Format& format, const TableArena& memory, TableRoot root, std::uint64_t iova,
                std::optional<DmaAccess> access) {
  return Walk<Format>(format, memory, access).from(root, iova);
}

Translation dispatch(const TableArena& memory, const PageTableShape& shape, TableRoot root, std::uint64_t iova,
                     std::optional<DmaAccess> access) {
  if (root.levels == 0) return fault("this format has no tables in memory", 0);
  const TableArena::WalkGuard guard(memory);
  switch (shape.format) {
    case PageTableFormat::vtd_ss: return run(hardware::VtdSecondStage(shape), memory, root, iova, access);
    case PageTableFormat::x86_64: return run(hardware::X86FirstStage(shape), memory, root, iova, access);
    case PageTableFormat::amdv1: return run(hardware::AmdV1(shape, 12), memory, root, iova, access);
    case PageTableFormat::mock: return run(hardware::AmdV1(shape, 11), memory, root, iova, access);
    case PageTableFormat::arm_lpae: return run(hardware::ArmLpae(shape), memory, root, iova, access);
    case PageTableFormat::riscv: return run(hardware::RiscV(shape), memory, root, iova, access);
    case PageTableFormat::s390: return run(hardware::S390(shape), memory, root, iova, access);
    case PageTableFormat::virtio: break;
  }
  return fault("this format has no tables in memory", 0);
}

}  // namespace

Translation walk(const TableArena& memory, const PageTableShape& shape, TableRoot root, std::uint64_t iova,
                 DmaAccess access) {
  return dispatch(memory, shape, root, iova, access);
}

Translation probe(const TableArena& memory, const PageTableShape& shape, TableRoot root, std::uint64_t iova) {
  return dispatch(memory, shape, root, iova, std::nullopt);
}

}  // namespace ioplan::sim

#include "backends/sim/page_table/page_table.h"

#include "backends/sim/page_table/amdv1.h"
#include "backends/sim/page_table/arm_lpae.h"
#include "backends/sim/page_table/ordered_map.h"
#include "backends/sim/page_table/radix_table.h"
#include "backends/sim/page_table/riscv.h"
#include "backends/sim/page_table/s390.h"
#include "backends/sim/page_table/vtd_second_stage.h"
#include "backends/sim/page_table/x86_64.h"

namespace ioplan::sim {

namespace {

// Calls `visit` with a null pointer to the table class of a shape; false when there is none.
template <class Visitor>
auto with_format(const PageTableShape& shape, Visitor&& visit) {
  const auto arm = [&]<unsigned stage>() {
    switch (lowest_bit(shape.page_sizes)) {
      case 1 << 12:
        return visit.template operator()<ArmLpae<12, stage>>();
      case 1 << 14:
        return visit.template operator()<ArmLpae<14, stage>>();
      case 1 << 16:
        return visit.template operator()<ArmLpae<16, stage>>();
      default:
        return visit.none();
    }
  };
  switch (shape.format) {
    case PageTableFormat::vtd_ss:
      return visit.template operator()<VtdSecondStage>();
    case PageTableFormat::x86_64:
      return visit.template operator()<X86_64>();
    case PageTableFormat::amdv1:
      return visit.template operator()<AmdV1<12>>();
    case PageTableFormat::mock:
      return visit.template operator()<AmdV1<11>>();
    case PageTableFormat::riscv:
      return visit.template operator()<RiscV>();
    case PageTableFormat::s390:
      return visit.template operator()<S390>();
    case PageTableFormat::arm_lpae:
      return shape.stage == 1 ? arm.template operator()<1>() : arm.template operator()<2>();
    case PageTableFormat::virtio:
      break;
  }
  return visit.none();
}

struct Supports {
  const PageTableShape& shape;

  bool none() const { return false; }

  template <class Format>
  bool operator()() const {
    if (!Format::supports(shape)) return false;
    const unsigned levels = Format::kGrows ? Format::kMostLevels : shape.levels;
    std::uint64_t sizes = 0;
    for (unsigned level = 0; level < levels; ++level) sizes |= Format::leaf_sizes(level);
    const bool spans = Format::kGrows || shape.format == PageTableFormat::arm_lpae ||
                       shape.aperture.last <= last_of_width(Format::item_lg2(levels));
    return (shape.page_sizes & ~sizes) == 0 && spans;
  }
};

struct Create {
  const PageTableShape& shape;
  TableArena& arena;

  std::unique_ptr<PageTable> none() const { return nullptr; }

  template <class Format>
  std::unique_ptr<PageTable> operator()() const {
    return RadixTable<Format>::create(shape, arena);
  }
};

}  // namespace

bool PageTable::supported(const PageTableShape& shape) {
  if (shape.page_sizes == 0 || shape.output_bits == 0 || shape.output_bits > 64) return false;
  if (shape.aperture.start > shape.aperture.last || shape.aperture.last > last_of_width(shape.address_bits))
    return false;
  return shape.format == PageTableFormat::virtio ? shape.levels == 0 : with_format(shape, Supports{shape});
}

std::unique_ptr<PageTable> PageTable::create(const PageTableShape& shape, TableArena& arena) {
  if (shape.format == PageTableFormat::virtio) return std::make_unique<OrderedMap>(shape);
  return with_format(shape, Create{shape, arena});
}

}  // namespace ioplan::sim

#include "constraints/drivers/drivers.h"
#include "engine/base/log2.h"

namespace ioplan::drivers {

namespace {

constexpr DeviceQ in_stage(DeviceQ stage1_quantity, unsigned stage) {
  constexpr auto distance = static_cast<unsigned>(DeviceQ::stage2) - static_cast<unsigned>(DeviceQ::stage1);
  return static_cast<DeviceQ>(static_cast<unsigned>(stage1_quantity) + (stage == 2 ? distance : 0));
}
static_assert(in_stage(DeviceQ::stage1_sync_map, 2) == DeviceQ::stage2_sync_map);

}  // namespace

void set_stage(DeviceQuantities& q, unsigned stage, const StageTables& t) {
  q[in_stage(DeviceQ::stage1, stage)] = t.available;
  q[in_stage(DeviceQ::stage1_format, stage)] = static_cast<std::uint64_t>(t.format);
  q[in_stage(DeviceQ::stage1_levels, stage)] = t.levels;
  q[in_stage(DeviceQ::stage1_bits, stage)] = t.bits;
  q[in_stage(DeviceQ::stage1_aperture_start, stage)] = t.aperture.start;
  q[in_stage(DeviceQ::stage1_aperture_last, stage)] = t.aperture.last;
  q[in_stage(DeviceQ::stage1_page_sizes, stage)] = t.page_sizes;
  q[in_stage(DeviceQ::stage1_coherent_walk, stage)] = t.coherent_walk;
  q[in_stage(DeviceQ::stage1_sync_map, stage)] = t.sync_map;
}

std::uint64_t fitting_page_sizes(std::uint64_t page_sizes, unsigned address_bits) {
  return address_bits == 0 ? 0 : page_sizes & last_of_width(address_bits - 1);
}
static_assert((0x40201000 & last_of_width(39 - 1)) == 0x40201000);

}  // namespace ioplan::drivers

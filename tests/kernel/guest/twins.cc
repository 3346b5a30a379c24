#include "tests/kernel/guest/twins.h"

#include <cstdio>

#include "tests/kernel/guest/kernel_subject.h"
#include "tests/kernel/guest/sim_subject.h"

namespace ioplan::kernel_test {

namespace {

constexpr std::uint32_t kFixed = 1, kWriteable = 2, kReadable = 4;

Operation make(Call call, unsigned device = 0, unsigned ioas = 0) {
  Operation o;
  o.call = call;
  o.device = device;
  o.ioas = ioas;
  return o;
}

Operation attach_to(unsigned device, Target target, std::uint32_t pasid) {
  Operation o = make(Call::attach, device);
  o.target = target;
  o.flags = pasid;
  return o;
}

}  // namespace

Twins::Twins(const Guest& guest) : guest_(guest), linux_(make_kernel_subject(guest.host)), simulator_(make_sim_subject(guest.host)) {}

Reply Twins::expect(int errno_value, const Operation& operation) {
  const Reply sim = perform(*simulator_, operation), kernel = perform(*linux_, operation);
  if (kernel == sim && kernel.errno_value == errno_value) return kernel;
  agree_ = false;
  std::printf("  %s: expected errno %d, linux %d, simulator %d%s\n", to_text(operation, guest_.host).c_str(), errno_value,
              kernel.errno_value, sim.errno_value, kernel.errno_value == sim.errno_value ? ", with another value" : "");
  return kernel;
}

void Twins::expect_that(bool holds, const std::string& claim) {
  if (holds) return;
  agree_ = false;
  std::printf("  it does not hold that %s\n", claim.c_str());
}

Operation bind(unsigned device) { return make(Call::bind, device); }
Operation ioas_alloc() { return make(Call::ioas_alloc); }
Operation iova_ranges(unsigned ioas) { return make(Call::iova_ranges, 0, ioas); }
Operation fault_queue_alloc() { return make(Call::fault_queue_alloc); }
Operation attach_ioas(unsigned device, unsigned ioas) { return attach_to(device, {TargetKind::ioas, ioas}, 0); }
Operation attach_hwpt(unsigned device, unsigned hwpt, std::uint32_t pasid) { return attach_to(device, {TargetKind::hwpt, hwpt}, pasid); }

Operation map(unsigned ioas, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) {
  Operation o = make(Call::map, 0, ioas);
  o.flags = kFixed | kWriteable | kReadable;
  o.a = offset;
  o.b = length;
  o.c = iova;
  return o;
}

Operation unmap(unsigned ioas, std::uint64_t iova, std::uint64_t length) {
  Operation o = make(Call::unmap, 0, ioas);
  o.a = iova;
  o.b = length;
  return o;
}

Operation hwpt_alloc(unsigned device, unsigned ioas, std::uint32_t flags, unsigned fault_queue) {
  Operation o = make(Call::hwpt_alloc, device);
  o.target = {TargetKind::ioas, ioas};
  o.flags = flags;
  o.other = fault_queue;
  return o;
}

Operation detach(unsigned device, std::uint32_t pasid) {
  Operation o = make(Call::detach, device);
  o.flags = pasid;
  return o;
}

Operation set_dirty_tracking(unsigned hwpt) {
  Operation o = make(Call::set_dirty_tracking);
  o.other = hwpt;
  o.flags = 1;
  return o;
}

Operation write_page(unsigned hwpt, std::uint64_t iova) {
  Operation o = make(Call::write_pages);
  o.other = hwpt;
  o.a = iova;
  o.b = 1;
  return o;
}

Operation get_dirty_bitmap(unsigned hwpt, std::uint64_t iova, std::uint64_t length) {
  Operation o = make(Call::get_dirty_bitmap);
  o.other = hwpt;
  o.a = iova;
  o.b = length;
  o.c = 4096;
  return o;
}

Operation dma_write(unsigned device, std::uint64_t offset, std::uint64_t iova) {
  Operation o = make(Call::dma_write, device);
  o.a = offset;
  o.c = iova;
  return o;
}

}  // namespace ioplan::kernel_test

// virtio-iommu: the device's configuration space. There is no corpus of it: masks and ranges as QEMU, crosvm and
// cloud-hypervisor offer them, and random ones.
#include "tests/kernel/law/hosts.h"

namespace ioplan::judged {

namespace {

class VirtioHosts final : public Hosts {
 public:
  judge_host draw(Draw& draw) const override {
    judge_host host{};
    host.page_size = draw.of({0x1000, 0x1000, 0x4000, 0x10000});
    host.one_unit = draw.one_in(4);
    host.units[0] = unit(draw);
    host.units[1] = draw.one_in(2) ? host.units[0] : unit(draw);
    return host;
  }

  Host ours(const judge_host& kernel, const std::array<judge_device, JUDGE_UNITS>&) const override {
    Host host = host_of_two(Arch::x86_64, Driver::virtio, kernel);
    host.kernel.facts[KernelFact::page_size] = kernel.page_size;
    for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
      Facts<UnitFact>& facts = host.units[i].facts;
      facts[UnitFact::page_sizes] = kernel.units[i].page_sizes;
      if (kernel.units[i].has_input_range == 0) continue;
      facts[UnitFact::input_start] = kernel.units[i].input_start;
      facts[UnitFact::input_last] = kernel.units[i].input_last;
    }
    return host;
  }

 private:
  static judge_unit unit(Draw& draw) {
    judge_unit u{};
    u.page_sizes = draw.of({0xfffffffffffff000, 0x40201000, 0xffffffffffffc000, 0xffffffffffff0000, 0x1000});
    if (draw.one_in(4)) u.page_sizes = draw.bits() & draw.bits() & ~std::uint64_t{0x7ff};
    u.has_input_range = !draw.one_in(4);
    u.input_last = ~std::uint64_t{0} >> draw.below(40);
    if (draw.one_in(4)) u.input_start = draw.bits() & u.input_last;
    return u;
  }
};

}  // namespace

std::unique_ptr<Hosts> virtio_hosts() { return std::make_unique<VirtioHosts>(); }

}  // namespace ioplan::judged

#include "tests/support/iommufd_world.h"

#include <stdexcept>

#include "constraints/kernel_law.h"

namespace ioplan::traces {

World::World(std::string_view sketch)
    : World(host_of(parse_trace(sketch).sketch), options_of(parse_trace(sketch).sketch)) {}

World::World(const Host& host, const sim::MachineOptions& options) {
  auto made = sim::Machine::create(host, kernel_law(), options);
  if (!made) throw std::runtime_error(to_text(made.error()));
  machine_ = std::move(*made);
  context_ = machine_->open();
  memory_ = machine_->memory().allocate(std::uint64_t{4} << 20, std::uint64_t{2} << 20);
}

sim::ObjectId World::bind(std::size_t device) { return context_->bind(device_name(device)).value(); }

sim::ObjectId World::ioas() { return context_->ioas_alloc().value(); }

int World::map(sim::ObjectId ioas, std::uint64_t iova, std::uint64_t length, std::uint32_t access) {
  return errno_of(context_->ioas_map(ioas, sim::kMapFixedIova | access, memory_.user_va, length, iova));
}

int World::dma_write(std::size_t device, std::uint64_t iova, std::uint32_t pasid) {
  const std::array<std::byte, 8> bytes{};
  return errno_of(machine_->dma_write(device_name(device), iova, bytes, pasid));
}

}  // namespace ioplan::traces

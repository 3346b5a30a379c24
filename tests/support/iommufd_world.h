// A simulated machine with one context and one piece of memory: what a scenario of a few calls needs.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "backends/sim/iommufd.h"
#include "backends/sim/machine.h"
#include "tests/support/iommufd_trace.h"

namespace ioplan::traces {

class World {
 public:
  // `sketch`: the first lines of a trace (unit, device, without ...).
  explicit World(std::string_view sketch);
  World(const Host& host, const sim::MachineOptions& options);

  sim::Context* operator->() { return context_.get(); }
  sim::Machine& machine() { return *machine_; }
  sim::ObjectId bind(std::size_t device);  // which must succeed
  sim::ObjectId ioas();
  std::uint64_t buffer() const { return memory_.user_va; }  // 4 MiB of 2 MiB pages
  int fd() const { return memory_.fd; }
  int map(sim::ObjectId ioas, std::uint64_t iova, std::uint64_t length = 4096, std::uint32_t access = 6);  // errno
  // What a device's write meets: 0 or an errno.
  int dma_write(std::size_t device, std::uint64_t iova, std::uint32_t pasid = 0);

 private:
  std::unique_ptr<sim::Machine> machine_;
  std::unique_ptr<sim::Context> context_;
  sim::Memory memory_;
};

template <class T>
int errno_of(const sim::Answer<T>& answer) {
  return answer ? 0 : answer.error().errno_value;
}

}  // namespace ioplan::traces

#include "bench/map_workload.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <random>
#include <utility>

namespace ioplan::bench {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30, kTiB = kGiB << 10;
constexpr std::uint64_t k4K = 1 << 12, k64K = 1 << 16, k2M = 1 << 21, k32M = 1 << 25, k1G = 1 << 30;

constexpr std::uint64_t kFirstPa = 8 * kTiB;

std::vector<std::uint32_t> shuffled(std::size_t n, std::mt19937_64& random) {
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::shuffle(order, random);
  return order;
}

// Every power of two from 4 KiB on that AMD's driver advertises; the 512 GiB one stays out, as in Linux.
constexpr std::uint64_t kAmdSizes = ((std::uint64_t{1} << 48) - 1) & ~(k4K - 1) & ~(std::uint64_t{1} << 39);

sim::PageTableShape shape(PageTableFormat format, unsigned stage, std::uint64_t page_sizes) {
  return {.format = format,
          .stage = stage,
          .levels = 4,
          .address_bits = 48,
          .aperture = {0, (std::uint64_t{1} << 48) - 1},
          .page_sizes = page_sizes,
          .output_bits = 48,
          .dirty_tracking = false,
          .force_coherence = false,
          .force_writeable = false};
}

sim::PageTableShape tracking(sim::PageTableShape s) {
  s.dirty_tracking = true;
  return s;
}

// Half of the IOVA space of a sign-extending format belongs to negative addresses.
sim::PageTableShape low_half(sim::PageTableShape s) {
  s.aperture.last = (std::uint64_t{1} << (s.address_bits - 1)) - 1;
  return s;
}

sim::PageTableShape amd() {
  sim::PageTableShape s = tracking(shape(PageTableFormat::amdv1, 2, kAmdSizes));
  s.levels = 3;
  s.force_coherence = true;
  return s;
}

}  // namespace

Workload workload(std::string name, unsigned page_lg2, std::size_t pages) {
  std::mt19937_64 random(page_lg2 * 1000 + pages);
  Workload w{.name = std::move(name), .page_lg2 = page_lg2, .extents = {}, .order = shuffled(pages, random)};
  const std::uint64_t size = w.page_size();
  // Every second page of the memory, so that no neighbours can meet.
  for (std::uint64_t slot : shuffled(pages, random)) w.extents.push_back({kFirstPa + slot * 2 * size, size});
  return w;
}

std::vector<Workload> all_workloads() {
  return {workload("128MiB-of-4K", 12, kGiB >> 15), workload("1GiB-of-4K", 12, kGiB >> 12),
          workload("1GiB-of-64K", 16, kGiB >> 16), workload("256GiB-of-2M", 21, 256 * kGiB >> 21),
          workload("1TiB-of-1G", 30, kTiB >> 30)};
}

Workload large_workload() { return workload("4GiB-of-4K", 12, 4 * kGiB >> 12); }

std::vector<NamedShape> all_shapes() {
  return {{"vtd-ss", tracking(shape(PageTableFormat::vtd_ss, 2, k4K | k2M | k1G))},
          {"x86-64", low_half(shape(PageTableFormat::x86_64, 1, k4K | k2M | k1G))},
          {"amdv1", amd()},
          {"arm-s1", tracking(shape(PageTableFormat::arm_lpae, 1, k4K | k2M | k1G))},
          {"arm-s2", tracking(shape(PageTableFormat::arm_lpae, 2, k4K | k2M | k1G))},
          {"arm-s2c", tracking(shape(PageTableFormat::arm_lpae, 2, k4K | k64K | k2M | k32M | k1G))},
          {"riscv", low_half(shape(PageTableFormat::riscv, 1, k4K | k64K | k2M | k1G))}};
}

}  // namespace ioplan::bench

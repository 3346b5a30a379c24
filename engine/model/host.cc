#include "engine/model/host.h"

#include <algorithm>
#include <numeric>

#include "engine/base/digest.h"
#include "engine/base/text.h"

namespace ioplan {

namespace {

template <class T>
std::optional<std::size_t> find_by_id(const std::vector<T>& sorted, std::string_view id) {
  const auto it = std::ranges::lower_bound(sorted, id, natural_less, &T::id);
  if (it == sorted.end() || it->id != id) return std::nullopt;
  return static_cast<std::size_t>(it - sorted.begin());
}

// Facts by their keys, so that facts which come with later versions and are absent change nothing. Names and labels are
// no facts of the hardware.
template <class Fact>
void add_facts(Digest& digest, const Facts<Fact>& facts) {
  for (std::size_t i = 0; i < kFactCount<Fact>; ++i) {
    const auto fact = static_cast<Fact>(i);
    if (!facts[fact] || row_of(fact).drivers == kNoDriver) continue;
    digest.add(row_of(fact).key);
    digest.add(*facts[fact]);
  }
}

void add_device(Digest& digest, const Host& host, const Device& d) {
  digest.add("device");
  digest.add(d.id);
  if (d.unit) {
    digest.add("behind");
    digest.add(host.unit(*d.unit).id);
  }
  if (d.group) {
    digest.add("group");
    digest.add(*d.group);
  }
  add_facts(digest, d.facts);
  if (d.dma_coherent_source) {
    digest.add("source");
    digest.add(static_cast<std::uint64_t>(*d.dma_coherent_source));
  }
  if (!d.reserved) return;
  digest.add("reserved");
  for (const ReservedRegion& r : *d.reserved) {
    for (std::uint64_t word : {r.range.start, r.range.last, static_cast<std::uint64_t>(r.type)}) digest.add(word);
  }
}

template <class T>
std::vector<std::size_t> sort_and_rank(std::vector<T>& items) {
  std::vector<std::size_t> order(items.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](auto a, auto b) { return natural_less(items[a].id, items[b].id); });
  std::vector<T> sorted;
  std::vector<std::size_t> rank(items.size());
  sorted.reserve(items.size());
  for (std::size_t i : order) {
    rank[i] = sorted.size();
    sorted.push_back(std::move(items[i]));
  }
  items = std::move(sorted);
  return rank;
}

}  // namespace

std::optional<DeviceIndex> Host::find_device(std::string_view id) const {
  const auto i = find_by_id(devices, id);
  return i ? std::optional(DeviceIndex(*i)) : std::nullopt;
}

std::optional<UnitIndex> Host::find_unit(std::string_view id) const {
  const auto i = find_by_id(units, id);
  return i ? std::optional(UnitIndex(*i)) : std::nullopt;
}

std::string fingerprint(const Host& host) {
  Digest digest;
  digest.add("kernel");
  if (host.kernel.arch) {
    digest.add("arch");
    digest.add(name_of(*host.kernel.arch));
  }
  if (host.kernel.release) {
    digest.add("release");
    digest.add(*host.kernel.release);
  }
  add_facts(digest, host.kernel.facts);
  for (const Unit& u : host.units) {
    digest.add("unit");
    digest.add(u.id);
    digest.add(name_of(u.driver));
    add_facts(digest, u.facts);
  }
  for (const Device& d : host.devices) add_device(digest, host, d);
  return digest.uuid();
}

Arch arch_of(const Host& host) {
  if (host.kernel.arch) return *host.kernel.arch;
  for (const Unit& u : host.units) {
    switch (u.driver) {
      case Driver::intel:
      case Driver::amd: return Arch::x86_64;
      case Driver::smmuv3:
      case Driver::smmuv2: return Arch::aarch64;
      case Driver::riscv: return Arch::riscv64;
      case Driver::s390: return Arch::s390x;
      case Driver::virtio:
      case Driver::mock: break;
    }
  }
  return Arch::x86_64;
}

void sort_by_id(Host& host) {
  const auto unit_rank = sort_and_rank(host.units);
  for (Device& d : host.devices) {
    if (d.unit) d.unit = UnitIndex(unit_rank[d.unit->index()]);
    if (d.reserved) std::ranges::sort(*d.reserved);
    std::ranges::sort(d.labels);
  }
  sort_and_rank(host.devices);
}

}  // namespace ioplan

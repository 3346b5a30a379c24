#include "engine/model/host.h"

#include <algorithm>
#include <boost/uuid/name_generator_sha1.hpp>
#include <boost/uuid/uuid_io.hpp>
#include <numeric>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace ioplan {

namespace {

template <class T>
std::optional<std::size_t> find_by_id(const std::vector<T>& sorted, std::string_view id) {
  const auto it = std::ranges::lower_bound(sorted, id, natural_less, &T::id);
  if (it == sorted.end() || it->id != id) return std::nullopt;
  return static_cast<std::size_t>(it - sorted.begin());
}

// Facts as text that does not depend on how they were written. Names and labels are not facts of the hardware.
template <class Fact>
void append_facts(std::string& text, const Facts<Fact>& facts) {
  for (std::size_t i = 0; i < kFactCount<Fact>; ++i) {
    const auto fact = static_cast<Fact>(i);
    if (facts[fact]) fmt::format_to(std::back_inserter(text), " {}={:x}", row_of(fact).key, *facts[fact]);
  }
}

void append_device(std::string& text, const Host& host, const Device& d) {
  text += "\ndevice " + d.id;
  if (d.unit) text += " unit=" + host.unit(*d.unit).id;
  if (d.group) text += " group=" + std::to_string(*d.group);
  append_facts(text, d.facts);
  if (d.dma_coherent_source) text += " source=" + std::to_string(static_cast<int>(*d.dma_coherent_source));
  if (!d.reserved) return;
  text += " reserved";
  for (const ReservedRegion& r : *d.reserved) {
    fmt::format_to(std::back_inserter(text), " {:x}-{:x}/{}", r.range.start, r.range.last, static_cast<int>(r.type));
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
  std::string text = "kernel";
  if (host.kernel.arch) text += " arch=" + std::string(name_of(*host.kernel.arch));
  if (host.kernel.release) text += " release=" + *host.kernel.release;
  append_facts(text, host.kernel.facts);
  for (const Unit& u : host.units) {
    text += "\nunit " + u.id + " " + std::string(name_of(u.driver));
    append_facts(text, u.facts);
  }
  for (const Device& d : host.devices) append_device(text, host, d);
  return to_string(boost::uuids::name_generator_sha1(boost::uuids::ns::oid())(text));
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

#include "tests/kernel/guest/operations.h"

#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>

namespace ioplan::kernel_test {

namespace {

constexpr std::array<std::string_view, kCalls> kNames = {
    "bind", "unbind", "ioas-alloc", "allow-iovas", "iova-ranges", "map", "copy", "unmap", "set-huge-pages", "get-huge-pages",
    "set-rlimit-mode", "hw-info", "fault-queue-alloc", "hwpt-alloc", "attach", "detach", "set-dirty-tracking",
    "get-dirty-bitmap", "destroy", "reserve", "access-create", "access-destroy", "check-map", "write-pages", "dma-write"};
constexpr std::array<const char*, 4> kKinds = {"ioas", "hwpt", "fault", "device"};
constexpr std::array<const char*, 4> kSources = {"memory", "file", "read-only", "nowhere"};

std::string hex(std::uint64_t value) {
  std::array<char, 32> text;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  std::snprintf(text.data(), text.size(), "0x%" PRIx64, value);
  return text.data();
}

std::string numbered(const char* what, unsigned number) { return std::string(" ") + what + std::to_string(number); }
std::string name_of(Target target) { return numbered(kKinds[static_cast<std::size_t>(target.kind)], target.handle); }

}  // namespace

std::string_view name_of(Call call) { return kNames[static_cast<std::size_t>(call)]; }

std::string to_text(const Operation& o, const Host& host) {
  std::string text(name_of(o.call));
  const std::string device = " " + host.devices[o.device].id, ioas = numbered("ioas", o.ioas);
  const std::string flags = numbered("flags ", o.flags), pasid = numbered("pasid ", o.flags);
  const std::string numbers = " " + hex(o.a) + " " + hex(o.b) + " " + hex(o.c);
  switch (o.call) {
    case Call::ioas_alloc:
    case Call::fault_queue_alloc: return text;
    case Call::bind:
    case Call::unbind:
    case Call::hw_info: return text + device;
    case Call::allow_iovas:
      text += ioas;
      for (const Range& r : o.ranges) text += " [" + hex(r.start) + "," + hex(r.last) + "]";
      return text;
    case Call::iova_ranges:
    case Call::get_huge_pages: return text + ioas;
    case Call::map: return text + ioas + " " + kSources[static_cast<std::size_t>(o.source)] + numbers + flags;
    case Call::unmap:
    case Call::set_huge_pages:
    case Call::reserve: return text + ioas + numbers;
    case Call::set_rlimit_mode: return text + " " + hex(o.a);
    case Call::copy: return text + ioas + numbered("from ioas", o.other) + numbers + flags;
    case Call::hwpt_alloc: return text + device + name_of(o.target) + flags + numbered("fault", o.other);
    case Call::attach: return text + device + name_of(o.target) + pasid;
    case Call::detach: return text + device + pasid;
    case Call::set_dirty_tracking:
    case Call::get_dirty_bitmap:
    case Call::check_map:
    case Call::write_pages: return text + numbered("hwpt", o.other) + numbers + flags;
    case Call::destroy: return text + name_of(o.target);
    case Call::access_create: return text + ioas + flags;
    case Call::access_destroy: return text + numbered("access", o.other);
    case Call::dma_write: return text + device + numbers;
  }
  return text;
}

Reply perform(Subject& s, const Operation& o) {
  switch (o.call) {
    case Call::bind: return s.bind(o.device);
    case Call::unbind: return s.unbind(o.device);
    case Call::ioas_alloc: return s.ioas_alloc();
    case Call::allow_iovas: return s.allow_iovas(o.ioas, o.ranges);
    case Call::iova_ranges: return s.iova_ranges(o.ioas);
    case Call::map: return s.map(o.ioas, o.flags, o.source, o.a, o.b, o.c);
    case Call::copy: return s.copy(o.ioas, o.other, o.flags, o.a, o.b, o.c);
    case Call::unmap: return s.unmap(o.ioas, o.a, o.b);
    case Call::set_huge_pages: return s.set_huge_pages(o.ioas, o.a);
    case Call::get_huge_pages: return s.get_huge_pages(o.ioas);
    case Call::set_rlimit_mode: return s.set_rlimit_mode(o.a);
    case Call::hw_info: return s.hw_info(o.device);
    case Call::fault_queue_alloc: return s.fault_queue_alloc();
    case Call::hwpt_alloc: return s.hwpt_alloc(o.device, o.target, o.flags, o.other);
    case Call::attach: return s.attach(o.device, o.target, o.flags);
    case Call::detach: return s.detach(o.device, o.flags);
    case Call::set_dirty_tracking: return s.set_dirty_tracking(o.other, o.flags);
    case Call::get_dirty_bitmap: return s.get_dirty_bitmap(o.other, o.flags, o.a, o.b, o.c);
    case Call::destroy: return s.destroy(o.target);
    case Call::reserve: return s.reserve(o.ioas, o.a, o.b);
    case Call::access_create: return s.access_create(o.ioas, o.flags);
    case Call::access_destroy: return s.access_destroy(o.other);
    case Call::check_map: return s.check_map(o.other, o.a, o.b, o.c);
    case Call::write_pages: return s.write_pages(o.other, o.a, o.b);
    case Call::dma_write: return s.dma_write(o.device, o.a, o.c);
  }
  return {EINVAL};
}

}  // namespace ioplan::kernel_test

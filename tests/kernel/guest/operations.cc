#include "tests/kernel/guest/operations.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>

namespace ioplan::kernel_test {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint32_t kFixed = 1, kWriteable = 2, kReadable = 4;

constexpr std::array<const char*, kCalls> kNames = {
    "bind", "unbind", "ioas-alloc", "allow-iovas", "iova-ranges", "map", "copy", "unmap", "huge-pages", "hwpt-alloc",
    "attach", "detach", "set-dirty-tracking", "get-dirty-bitmap", "destroy"};

std::string hex(std::uint64_t value) {
  std::array<char, 32> text;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  std::snprintf(text.data(), text.size(), "0x%" PRIx64, value);
  return text.data();
}

std::string name_of(Target target) {
  return (target.kind == TargetKind::ioas ? "ioas" : "hwpt") + std::to_string(target.handle);
}

}  // namespace

std::string to_text(const Operation& o, const Host& host) {
  std::string text = kNames[static_cast<std::size_t>(o.call)];
  const std::string device = " " + host.devices[o.device].id;
  const std::string ioas = " ioas" + std::to_string(o.ioas);
  const std::string numbers = " " + hex(o.a) + " " + hex(o.b) + " " + hex(o.c) + " flags " + std::to_string(o.flags);
  switch (o.call) {
    case Call::bind:
    case Call::unbind: return text + device;
    case Call::ioas_alloc: return text;
    case Call::allow_iovas:
      text += ioas;
      for (const Range& r : o.ranges) text += " [" + hex(r.start) + "," + hex(r.last) + "]";
      return text;
    case Call::iova_ranges: return text + ioas;
    case Call::map:
    case Call::unmap:
    case Call::huge_pages: return text + ioas + numbers;
    case Call::copy: return text + ioas + " from ioas" + std::to_string(o.other) + numbers;
    case Call::hwpt_alloc: return text + device + ioas + " flags " + std::to_string(o.flags);
    case Call::attach: return text + device + " " + name_of(o.target) + " pasid " + std::to_string(o.flags);
    case Call::detach: return text + device + " pasid " + std::to_string(o.flags);
    case Call::set_dirty_tracking:
    case Call::get_dirty_bitmap: return text + " hwpt" + std::to_string(o.other) + numbers;
    case Call::destroy: return text + " " + name_of(o.target);
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
    case Call::map: return s.map(o.ioas, o.flags, o.a, o.b, o.c);
    case Call::copy: return s.copy(o.ioas, o.other, o.flags, o.a, o.b, o.c);
    case Call::unmap: return s.unmap(o.ioas, o.a, o.b);
    case Call::huge_pages: return s.huge_pages(o.ioas, o.a);
    case Call::hwpt_alloc: return s.hwpt_alloc(o.device, o.ioas, o.flags);
    case Call::attach: return s.attach(o.device, o.target, o.flags);
    case Call::detach: return s.detach(o.device, o.flags);
    case Call::set_dirty_tracking: return s.set_dirty_tracking(o.other, o.flags);
    case Call::get_dirty_bitmap: return s.get_dirty_bitmap(o.other, o.a, o.b, o.c);
    case Call::destroy: return s.destroy(o.target);
  }
  return {EINVAL};
}

Generator::Generator(std::vector<unsigned> devices, std::uint64_t seed) : devices_(std::move(devices)), random_(seed) {
  interesting_ = {0,          kPage,      kMiB,       16 * kMiB,  17 * kMiB,          0x40000000,         0x7fe00000,
                  0x80000000, 0xfec00000, 0xfee00000, 0xfef00000, 0x7fffe00000,       0xfd00000000,       0xffffe00000,
                  std::uint64_t{1} << 39, (std::uint64_t{1} << 47) - 2 * kMiB, std::uint64_t{1} << 47,
                  (std::uint64_t{1} << 48) - 2 * kMiB, std::uint64_t{1} << 48, ~std::uint64_t{0} - 2 * kMiB + 1, ~std::uint64_t{0} - kPage + 1};
}

unsigned Generator::below(std::size_t n) { return static_cast<unsigned>(random_() % n); }
bool Generator::one_in(unsigned n) { return below(n) == 0; }

std::uint64_t Generator::address() {
  std::uint64_t at = interesting_[below(interesting_.size())];
  if (!one_in(3)) at = 16 * kMiB + below(64) * 64 * 1024;  // where every format can map
  at += below(4) * kPage;
  return one_in(24) ? at + 2048 : one_in(24) ? at + 1 : at;
}

std::uint64_t Generator::length() {
  static constexpr std::array<std::uint64_t, 8> kLengths = {kPage, kPage, 2 * kPage, 16 * kPage, 64 * kPage, kMiB, 2 * kMiB, 3 * kMiB + kPage};
  if (one_in(32)) return below(3) == 0 ? 0 : below(2) * 2048 + 2048;
  return kLengths[below(kLengths.size())];
}

unsigned Generator::device() {
  return bound_.empty() || one_in(12) ? devices_[below(devices_.size())] : bound_[below(bound_.size())];
}

Target Generator::target() {
  if (hwpts_ > 0 && one_in(2)) return {TargetKind::hwpt, one_in(3) ? below(hwpts_) : hwpts_ - 1 - below(std::min(hwpts_, 4U))};
  return {TargetKind::ioas, ioas()};
}

unsigned Generator::ioas() { return one_in(5) ? below(ioases_) : ioases_ - 1 - below(std::min(ioases_, 3U)); }

// Most unmaps, copies and dirty reads are of something that was mapped, whole or cut.
void Generator::aim(Operation& o) {
  if (mappings_.empty() || one_in(5)) return;
  const Mapping m = mappings_[mappings_.size() - 1 - below(std::min<std::size_t>(mappings_.size(), 8))];
  const std::uint64_t cut = one_in(4) ? below(3) * kPage : 0;
  const std::uint64_t length = one_in(6) ? m.length / 2 : m.length - std::min(cut, m.length);
  if (o.call == Call::copy) {
    o.other = m.ioas;
    o.a = length;
    o.c = m.iova + cut;
  } else if (o.call == Call::get_dirty_bitmap) {
    o.a = m.iova + cut;
    o.b = length;
  } else {
    o.ioas = m.ioas;
    o.a = m.iova + (one_in(4) ? cut : 0);
    o.b = length;
  }
}

Operation Generator::next() {
  Operation o;
  if (ioases_ == 0) return o;
  static constexpr std::array<unsigned, kCalls> kWeights = {10, 2, 3, 3, 12, 22, 6, 14, 2, 10, 20, 5, 4, 5, 5};
  unsigned draw = below(123);
  unsigned call = 0;
  while (draw >= kWeights[call]) draw -= kWeights[call++];
  o.call = static_cast<Call>(call);
  o.device = o.call == Call::bind ? devices_[below(devices_.size())] : device();
  o.target = target();
  o.ioas = ioas();
  o.other = o.call == Call::copy ? below(ioases_) : hwpts_ == 0 ? 0 : below(hwpts_);
  switch (o.call) {
    case Call::allow_iovas:
      for (unsigned n = below(3); n > 0; --n) {
        const std::uint64_t start = address();
        o.ranges.push_back({start, start + length() * (one_in(2) ? 1 : 64) - 1});
      }
      break;
    case Call::map:
      o.flags = (one_in(4) ? 0 : kFixed) | (one_in(24) ? 0 : kReadable) | (one_in(4) ? 0 : kWriteable);
      o.b = length();
      o.a = below(static_cast<std::size_t>((kBufferBytes - std::min(o.b, kBufferBytes)) / kPage + 1)) * kPage;
      if (one_in(3)) o.a &= ~(kMiB - 1);
      o.c = address();
      break;
    case Call::copy:
      o.flags = (one_in(4) ? 0 : kFixed) | kReadable | (one_in(3) ? 0 : kWriteable);
      o.a = length();
      o.b = address();
      o.c = address();
      aim(o);
      break;
    case Call::unmap:
      o.a = one_in(16) ? 0 : address();
      o.b = one_in(16) ? ~std::uint64_t{0} : one_in(3) ? 64 * kMiB : length();
      if (!one_in(8)) aim(o);
      break;
    case Call::huge_pages: o.a = one_in(12) ? 2 : below(2); break;
    case Call::hwpt_alloc:
      o.flags = one_in(2) ? 0 : one_in(12) ? 16 : static_cast<std::uint32_t>(1U << below(4));
      if (one_in(6)) o.flags |= 1U << below(4);
      o.flags &= ~4U;  // no fault queues here
      break;
    case Call::attach:
    case Call::detach: o.flags = one_in(8) ? 1 + below(2) : 0; break;
    case Call::set_dirty_tracking: o.flags = below(2); break;
    case Call::get_dirty_bitmap:
      o.a = address();
      o.b = length();
      o.c = one_in(16) ? 0 : one_in(4) ? 2048 : kPage;
      aim(o);
      break;
    default: break;
  }
  return o;
}

void Generator::learn(const Operation& o, const Reply& reply) {
  if (reply.errno_value != 0) return;
  if (o.call == Call::ioas_alloc) ++ioases_;
  if (o.call == Call::hwpt_alloc) ++hwpts_;
  if (o.call == Call::bind) bound_.push_back(o.device);
  if (o.call == Call::unbind) std::erase(bound_, o.device);
  if (o.call == Call::map) mappings_.push_back({o.ioas, reply.value, o.b});
  if (o.call == Call::copy) mappings_.push_back({o.ioas, reply.value, o.a});
  if (o.call == Call::map && (o.flags & kFixed) == 0) interesting_.push_back(reply.value);
}

}  // namespace ioplan::kernel_test

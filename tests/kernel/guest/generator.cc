#include "tests/kernel/guest/generator.h"

#include <algorithm>

namespace ioplan::kernel_test {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kLast = ~std::uint64_t{0};
constexpr std::uint32_t kFixed = 1, kWriteable = 2, kReadable = 4;
constexpr std::uint32_t kNestParent = 1, kDirtyTracking = 2, kFaultIdValid = 4, kPasid = 8;

struct Weight {
  Call call;
  unsigned weight;
};
constexpr std::array<Weight, kCalls> kWeights = {{{Call::bind, 10},
                                                  {Call::unbind, 2},
                                                  {Call::ioas_alloc, 3},
                                                  {Call::allow_iovas, 3},
                                                  {Call::iova_ranges, 12},
                                                  {Call::map, 22},
                                                  {Call::copy, 6},
                                                  {Call::unmap, 12},
                                                  {Call::set_huge_pages, 2},
                                                  {Call::get_huge_pages, 1},
                                                  {Call::set_rlimit_mode, 1},
                                                  {Call::hw_info, 2},
                                                  {Call::fault_queue_alloc, 2},
                                                  {Call::hwpt_alloc, 11},
                                                  {Call::attach, 21},
                                                  {Call::detach, 5},
                                                  {Call::set_dirty_tracking, 4},
                                                  {Call::get_dirty_bitmap, 5},
                                                  {Call::destroy, 6},
                                                  {Call::reserve, 2},
                                                  {Call::access_create, 1},
                                                  {Call::access_destroy, 1},
                                                  {Call::check_map, 4},
                                                  {Call::write_pages, 4},
                                                  {Call::dma_write, 0}}};

constexpr unsigned total_weight() {
  unsigned sum = 0;
  for (const Weight& w : kWeights) sum += w.weight;
  return sum;
}

Call call_at(unsigned draw) {
  for (const Weight& w : kWeights) {
    if (draw < w.weight) return w.call;
    draw -= w.weight;
  }
  return Call::ioas_alloc;
}

}  // namespace

Generator::Generator(std::vector<unsigned> devices, std::vector<unsigned> mock, std::uint64_t seed)
    : devices_(std::move(devices)),
      mock_(std::move(mock)),
      random_(seed),
      theme_(one_in(3) ? Theme::dirty : one_in(4) ? Theme::pasids : Theme::mixed) {
  const std::uint64_t one = 1;
  interesting_ = {0,          kPage,      kMiB,       16 * kMiB,  17 * kMiB, 0x40000000, 0x7fe00000, 0x80000000,
                  0xfec00000, 0xfee00000, 0xfef00000, 0x7fffe00000, 0xfd00000000, 0xffffe00000,
                  one << 39, (one << 47) - 2 * kMiB, one << 47, (one << 48) - 2 * kMiB, one << 48, kLast - 2 * kMiB + 1,
                  kLast - kPage + 1};
}

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

// 2^20 is one more than any device has.
std::uint32_t Generator::pasid() {
  if (!one_in(theme_ == Theme::pasids ? 2 : 8)) return 0;
  return one_in(12) ? 1U << 20 : 1 + below(2);
}

unsigned Generator::device() {
  if (theme_ != Theme::mixed && one_in(2)) return mock_[below(mock_.size())];
  return bound_.empty() || one_in(12) ? devices_[below(devices_.size())] : bound_[below(bound_.size())];
}

unsigned Generator::recent(const std::vector<unsigned>& handles) {
  if (handles.empty()) return 0;
  return one_in(4) ? handles[below(handles.size())] : handles[handles.size() - 1 - below(std::min<std::size_t>(handles.size(), 3))];
}

unsigned Generator::handle(TargetKind kind) {
  Objects& o = objects(kind);
  return one_in(24) || o.live.empty() ? below(o.made + 1) : recent(o.live);
}

Target Generator::attach_target() {
  if (one_in(40)) return any_target();
  const TargetKind kind = objects(TargetKind::hwpt).live.empty() || one_in(2) ? TargetKind::ioas : TargetKind::hwpt;
  return {kind, handle(kind)};
}

Target Generator::any_target() {
  const auto kind = static_cast<TargetKind>(below(4));
  return {kind, kind == TargetKind::device ? device() : handle(kind)};
}

const Generator::Mapping* Generator::recent_mapping() {
  if (mappings_.empty() || one_in(5)) return nullptr;
  return &mappings_[mappings_.size() - 1 - below(std::min<std::size_t>(mappings_.size(), 8))];
}

// What needs an object that is not there makes it instead, mostly.
Call Generator::sensible(Call drawn) {
  if (one_in(12)) return drawn;
  switch (drawn) {
    case Call::hwpt_alloc:
    case Call::attach:
    case Call::detach:
    case Call::hw_info:
    case Call::unbind: return bound_.empty() ? Call::bind : drawn;
    case Call::check_map: return mock_hwpts_.empty() ? sensible(Call::hwpt_alloc) : drawn;
    case Call::set_dirty_tracking: return trackable_.empty() ? sensible(Call::hwpt_alloc) : drawn;
    case Call::get_dirty_bitmap:
    case Call::write_pages: return tracking_.empty() ? sensible(Call::set_dirty_tracking) : drawn;
    case Call::access_destroy: return accesses_.empty() ? Call::access_create : drawn;
    default: return drawn;
  }
}

const Generator::Mapping* Generator::mapping_of(unsigned hwpt) {
  for (unsigned tries = 0; tries < 6 && hwpt < ioas_of_.size(); ++tries) {
    const Mapping* m = recent_mapping();
    if (m != nullptr && m->ioas == ioas_of_[hwpt]) return m;
  }
  return nullptr;
}

Operation Generator::next() {
  Operation o;
  if (objects(TargetKind::ioas).live.empty()) {
    if (one_in(4)) o.call = Call::set_rlimit_mode;
    o.a = below(3);
    return o;
  }
  static constexpr std::array kDirtyCalls = {Call::get_dirty_bitmap, Call::write_pages, Call::write_pages, Call::check_map, Call::map};
  const Call drawn = call_at(below(total_weight()));
  o.call = sensible(theme_ == Theme::dirty && one_in(3) ? kDirtyCalls[below(kDirtyCalls.size())] : drawn);
  o.device = o.call == Call::bind && theme_ == Theme::mixed ? devices_[below(devices_.size())] : device();
  o.ioas = handle(TargetKind::ioas);
  o.other = handle(TargetKind::hwpt);
  fill(o);
  return o;
}

void Generator::fill(Operation& o) {
  switch (o.call) {
    case Call::allow_iovas: return fill_allowed(o);
    case Call::map: return fill_map(o);
    case Call::copy: return fill_copy(o);
    case Call::unmap: return fill_unmap(o);
    case Call::set_huge_pages:
    case Call::set_rlimit_mode: o.a = one_in(12) ? 2 : below(2); return;
    case Call::hwpt_alloc: return fill_hwpt(o);
    case Call::attach: o.target = attach_target(); o.flags = pasid(); return;
    case Call::detach: o.flags = pasid(); return;
    case Call::set_dirty_tracking:
      if (!one_in(6)) o.other = recent(trackable_);
      o.flags = one_in(3) ? 0 : 1;
      return;
    case Call::get_dirty_bitmap: return fill_dirty_bitmap(o);
    case Call::destroy: o.target = any_target(); return;
    case Call::reserve:
      o.a = one_in(3) ? address() : 32 * kMiB + below(1024) * kPage;
      o.b = one_in(24) ? kLast : length();
      return;
    case Call::access_create: o.flags = below(2); return;
    case Call::access_destroy: o.other = one_in(8) ? below(accesses_.size() + 1) : recent(accesses_); return;
    case Call::check_map: return fill_check(o);
    case Call::write_pages: return fill_write(o);
    default: return;
  }
}

void Generator::fill_allowed(Operation& o) {
  for (unsigned n = below(3); n > 0; --n) {
    const std::uint64_t start = address();
    o.ranges.push_back({start, start + length() * (one_in(2) ? 1 : 64) - 1});
  }
}

void Generator::fill_map(Operation& o) {
  o.source = one_in(3) ? Source::file : one_in(12) ? Source::read_only : one_in(24) ? Source::nowhere : Source::memory;
  o.flags = (one_in(4) ? 0 : kFixed) | (one_in(24) ? 0 : kReadable) | (one_in(4) ? 0 : kWriteable);
  if (one_in(48)) o.flags |= 8;
  o.b = length();
  o.a = below(static_cast<std::size_t>((kBufferBytes - std::min(o.b, kBufferBytes)) / kPage + 1)) * kPage;
  if (one_in(3)) o.a &= ~(kMiB - 1);
  o.c = one_in(64) ? kLast : address();
}

// Most copies, unmaps and looks at pages are of something that was mapped, whole or cut.
void Generator::fill_copy(Operation& o) {
  o.other = handle(TargetKind::ioas);
  o.flags = (one_in(4) ? 0 : kFixed) | kReadable | (one_in(3) ? 0 : kWriteable);
  o.a = length();
  o.b = address();
  o.c = address();
  if (const Mapping* m = recent_mapping()) {
    const std::uint64_t front = cut();
    o.other = m->ioas;
    o.a = one_in(6) ? m->length / 2 : m->length - std::min(front, m->length);
    o.c = m->iova + front;
  }
}

void Generator::fill_unmap(Operation& o) {
  const bool all = one_in(24);
  o.a = all ? 0 : address();
  o.b = all ? kLast : one_in(3) ? 64 * kMiB : length();
  if (all || one_in(8)) return;
  if (const Mapping* m = recent_mapping()) {
    const std::uint64_t front = cut();
    o.ioas = m->ioas;
    o.a = m->iova + (one_in(4) ? front : 0);
    o.b = one_in(6) ? m->length / 2 : m->length - std::min(front, m->length);
  }
}

void Generator::fill_hwpt(Operation& o) {
  o.target = one_in(16) ? any_target() : Target{TargetKind::ioas, handle(TargetKind::ioas)};
  o.other = handle(TargetKind::fault_queue);
  if (one_in(theme_ == Theme::dirty ? 1 : 3)) o.device = mock_[below(mock_.size())];
  if (theme_ == Theme::dirty && !one_in(4)) o.flags = kDirtyTracking;
  if (theme_ == Theme::pasids && !one_in(4)) o.flags = kPasid;
  if (o.flags != 0 || one_in(2)) return;
  o.flags = one_in(16) ? 16 : 1U << below(4);
  if (one_in(6)) o.flags |= 1U << below(4);
  static_assert((kNestParent | kDirtyTracking | kFaultIdValid | kPasid) == 15);
}

void Generator::fill_dirty_bitmap(Operation& o) {
  if (!one_in(8)) o.other = recent(tracking_);
  o.flags = one_in(3) ? 1 : 0;
  o.a = address();
  o.b = length();
  o.c = one_in(16) ? 0 : one_in(4) ? 2048 : one_in(8) ? 2 * kMiB : kPage;
  if (const Mapping* m = mapping_of(o.other)) {
    const std::uint64_t front = cut();
    o.a = m->iova + front;
    o.b = m->length - std::min(front, m->length);
  }
}

void Generator::fill_write(Operation& o) {
  if (!one_in(8)) o.other = recent(tracking_);
  o.a = address();
  if (const Mapping* m = mapping_of(o.other)) o.a = m->iova + below(static_cast<std::size_t>(m->length / kPage + 1)) * kPage;
  o.b = one_in(2) ? random_() : one_in(4) ? kLast : std::uint64_t{1} << below(64);
}

void Generator::fill_check(Operation& o) {
  if (!one_in(8)) o.other = recent(mock_hwpts_);
  o.b = kPage * (1 + below(16));
  o.a = below(static_cast<std::size_t>((kBufferBytes - o.b) / kPage)) * kPage;
  o.c = address();
  if (const Mapping* m = mapping_of(o.other)) {
    o.a = m->offset + cut();
    o.b = one_in(8) ? o.b : std::min(m->length, 64 * kPage);
    o.c = m->iova;
  }
  o.b = std::min(o.b, kBufferBytes - std::min(o.a, kBufferBytes));
}

unsigned Generator::made(TargetKind kind) {
  Objects& o = objects(kind);
  o.live.push_back(o.made);
  return o.made++;
}

void Generator::forget(Target target) {
  std::erase(objects(target.kind).live, target.handle);
  if (target.kind != TargetKind::hwpt) return;
  for (auto* list : {&mock_hwpts_, &trackable_, &tracking_}) std::erase(*list, target.handle);
}

void Generator::learn(const Operation& o, const Reply& reply) {
  if (reply.errno_value != 0) return;
  switch (o.call) {
    case Call::ioas_alloc: made(TargetKind::ioas); break;
    case Call::fault_queue_alloc: made(TargetKind::fault_queue); break;
    case Call::hwpt_alloc: {
      const unsigned handle = made(TargetKind::hwpt);
      ioas_of_.push_back(o.target.handle);
      if (std::ranges::find(mock_, o.device) != mock_.end()) mock_hwpts_.push_back(handle);
      if ((o.flags & kDirtyTracking) != 0) trackable_.push_back(handle);
      break;
    }
    case Call::access_create: accesses_.push_back(static_cast<unsigned>(reply.value)); break;
    case Call::access_destroy: std::erase(accesses_, o.other); break;
    case Call::set_dirty_tracking:
      std::erase(tracking_, o.other);
      if (o.flags != 0) tracking_.push_back(o.other);
      break;
    case Call::bind: bound_.push_back(o.device); break;
    case Call::unbind: std::erase(bound_, o.device); break;
    case Call::destroy: forget(o.target); break;
    case Call::map:
      mappings_.push_back({o.ioas, reply.value, o.b, o.source, o.a});
      if ((o.flags & kFixed) == 0) interesting_.push_back(reply.value);
      break;
    case Call::copy: mappings_.push_back({o.ioas, reply.value, o.a, Source::memory, 0}); break;
    default: break;
  }
}

}  // namespace ioplan::kernel_test

#include "tests/support/iommufd_calls.h"

#include <algorithm>
#include <array>

namespace ioplan::traces {

namespace {

using sim::ObjectId;

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kTop = slow::kTop;

// How often each verb is drawn, in percent and a bit.
constexpr std::array<unsigned, static_cast<std::size_t>(Verb::count)> kWeights = {
    20,   // bind
    12,   // unbind
    15,   // ioas_alloc
    42,   // ioas_allow_iovas
    20,   // ioas_iova_ranges
    150,  // ioas_map
    45,   // ioas_map_file
    60,   // ioas_copy
    60,   // ioas_unmap
    35,   // set_option
    15,   // get_option
    110,  // hwpt_alloc
    20,   // fault_queue_alloc
    10,   // get_hw_info
    35,   // set_dirty
    45,   // get_dirty
    105,  // attach
    80,   // replace
    30,   // vfio_attach
    35,   // detach
    20,   // access_create
    8,    // access_destroy
    45,   // destroy
    25,   // dma_read
    50,   // dma_write
    2,    // close
};

// What apertures, reserved regions and widths make interesting. Software MSI windows are left out: what lies under
// a doorbell is not the model's business.
constexpr std::uint64_t kBoundaries[] = {
    0, 0x1000, 0xfff000, 0x1000000, 0x7c000000, 0x7ffff000,
    0x80000000, 0xeffff000, 0xf0000000, 0xf0100000, 0xfedff000, 0xfee00000,
    0xfef00000, 0x7ffffff000, 0x8000000000, 0x3fffffffff0, 0xfd00000000, 0x10000000000,
    0x7ffffffff000, 0x800000000000, 0xfffffffff000, 0x1000000000000, 0xfffffffffffff000, kTop};

}  // namespace

// -------------------------------------------------------------------------------------------------------------- hosts

CallGenerator::CallGenerator(std::uint64_t seed)
    : random_(seed),
      theme_(one_of({Theme::mixed, Theme::dirty, Theme::memory, Theme::owners, Theme::sharing, Theme::sharing,
                     Theme::pasids, Theme::domain_ids})) {}

UnitKind CallGenerator::unit_kind() {
  using enum UnitKind;
  switch (theme_) {
    case Theme::dirty:
      return one_of({intel_scalable, amd, amd_v2, smmuv3, mock, mock});
    case Theme::sharing:
      return one_of({intel_legacy, intel_no_snoop, intel_narrow, intel_scalable, intel_scalable, intel_second_only});
    case Theme::owners:
      return one_of({intel_legacy, intel_no_snoop, amd, mock, smmuv3, intel_scalable});
    case Theme::pasids:
      return one_of({intel_scalable, mock, smmuv3, amd, virtio, intel_second_only, smmuv3_second_only});
    case Theme::domain_ids:
      return one_of({intel_legacy, intel_scalable, smmuv2, smmuv3, smmuv3_second_only, virtio, amd});
    case Theme::memory:
      return one_of({mock, intel_legacy, intel_second_only, s390, virtio, virtio});
    default:
      return one_of({intel_legacy, intel_no_snoop, intel_narrow, intel_scalable, intel_scalable, intel_second_only, amd,
                     amd_v2, smmuv3, smmuv3_second_only, smmuv2, smmuv2_incoherent, virtio, virtio_coarse, riscv, s390,
                     mock, mock, mock});
  }
}

Sketch CallGenerator::sketch() {
  using enum UnitKind;
  Sketch sketch;
  const std::size_t units = 1 + below(3) + (theme_ == Theme::owners || theme_ == Theme::sharing);
  bool has_smmuv2 = false;
  for (std::size_t u = 0; u < units; ++u) {
    UnitKind kind = unit_kind();
    // Which of two SMMUv2 a HWPT belongs to is settled when something attaches; one is enough.
    if (has_smmuv2 && (kind == smmuv2 || kind == smmuv2_incoherent)) kind = mock;
    has_smmuv2 = has_smmuv2 || kind == smmuv2 || kind == smmuv2_incoherent;
    sketch.units.push_back({kind, theme_ == Theme::domain_ids || chance(15)});
  }
  const std::size_t devices = 2 + below(4);
  std::uint32_t group = 0;
  for (std::size_t d = 0; d < devices; ++d) {
    const bool joins = d > 0 && chance(35);
    const std::size_t unit = joins ? sketch.devices.back().unit : below(units);
    group += d > 0 && !joins;
    sketch.devices.push_back(device_for(sketch, unit, group));
  }
  if (theme_ == Theme::memory || chance(15)) sketch.memlock_pages = one_of<std::uint64_t>({3, 6, 12, 40, 600});
  sketch.cap_sys_resource = chance(80);
  if (chance(10)) sketch.hazards.failed_replace_blocks_dma = false;
  if (chance(10)) sketch.hazards.failed_replace_drops_reservations = false;
  if (chance(30)) sketch.hazards.replace_across_owners_crashes = false;
  return sketch;
}

SketchDevice CallGenerator::device_for(const Sketch& sketch, std::size_t unit, std::uint32_t group) {
  SketchDevice device{unit, group, 0, 0};
  const bool is_mock = sketch.units[unit].kind == UnitKind::mock;
  if (chance(2)) device.traits |= kDirectRegion;
  if (chance(15)) device.traits |= kRelaxableRegion;
  if (chance(20)) device.traits |= kOrdinaryRegion;
  if (chance(3)) device.traits |= kSecondWindow;
  if (chance(2)) device.traits |= kUnsafeInterrupts;
  if (is_mock && chance(40)) device.traits |= kNoDirty;
  if (chance(50)) device.traits |= kCanForceWriteBack;
  if (chance(70)) device.pasid_bits = static_cast<unsigned>(one_of<std::uint64_t>({5, 5, 1, 20}));
  return device;
}

// -------------------------------------------------------------------------------------------------------------- calls

unsigned CallGenerator::weight(Verb v) const {
  const unsigned usual = kWeights[static_cast<std::size_t>(v)];
  switch (v) {
    case Verb::set_dirty:
    case Verb::get_dirty:
    case Verb::dma_write:
      return theme_ == Theme::dirty ? 3 * usual : theme_ == Theme::memory ? 2 * usual : usual;
    case Verb::dma_read:
      return theme_ == Theme::memory ? 4 * usual : usual;
    case Verb::ioas_copy:
      return theme_ == Theme::memory ? 3 * usual : usual;
    case Verb::replace:
    case Verb::vfio_attach:
      return theme_ == Theme::owners || theme_ == Theme::sharing ? 2 * usual : usual;
    case Verb::hwpt_alloc:
      return theme_ == Theme::domain_ids || theme_ == Theme::sharing ? 2 * usual : usual;
    default:
      return usual;
  }
}

Verb CallGenerator::verb() {
  unsigned sum = 0;
  for (unsigned v = 0; v < kWeights.size(); ++v) sum += weight(static_cast<Verb>(v));
  std::uint64_t at = below(sum);
  for (unsigned v = 0; v < kWeights.size(); ++v) {
    const auto candidate = static_cast<Verb>(v);
    if (at < weight(candidate)) return candidate;
    at -= weight(candidate);
  }
  return Verb::ioas_alloc;
}

// A call that has nothing to work on says ENOENT, which is soon known: most of the time, what is missing comes first.
Verb CallGenerator::sensible(const slow::Context& c, Verb drawn) {
  if (c.ioases.empty() && chance(90)) return Verb::ioas_alloc;
  if (c.devices.empty() && chance(60)) return Verb::bind;
  if (c.devices.size() < 2 && chance(15)) return Verb::bind;
  if (theme_ == Theme::dirty && chance(60)) return towards_dirty_pages(c, drawn);
  const bool faults = theme_ == Theme::owners || theme_ == Theme::sharing;
  if (faults && c.faults.empty() && chance(15)) return Verb::fault_queue_alloc;
  if (theme_ == Theme::memory && c.ioases.size() < 2 && chance(50)) return Verb::ioas_alloc;
  if (c.devices.empty()) return drawn;
  if (c.hwpts.empty() && chance(25)) return chance(50) ? Verb::hwpt_alloc : Verb::attach;
  const bool needs_hwpt = drawn == Verb::set_dirty || drawn == Verb::get_dirty || drawn == Verb::destroy;
  if (c.hwpts.empty() && needs_hwpt && chance(80)) return Verb::hwpt_alloc;
  const bool needs_attachment =
      drawn == Verb::replace || drawn == Verb::detach || drawn == Verb::dma_read || drawn == Verb::dma_write;
  const auto mapped = [](const auto& entry) { return !entry.second.areas.empty(); };
  if (drawn == Verb::ioas_copy && std::ranges::none_of(c.ioases, mapped) && chance(80)) return Verb::ioas_map;
  if (c.attachments.empty() && needs_attachment && chance(80)) return Verb::attach;
  return drawn;
}

// The next step to a page that the hardware marks: a HWPT with the flag, a device on it, a map, tracking on.
Verb CallGenerator::towards_dirty_pages(const slow::Context& c, Verb drawn) const {
  for (const auto& [id, h] : c.hwpts) {
    if ((h.flags & sim::kHwptDirtyTracking) == 0) continue;
    const ObjectId mine = id;
    const auto uses = [&](const auto& entry) { return entry.second.hwpt == mine; };
    if (std::ranges::none_of(c.attachments, uses)) return Verb::vfio_attach;
    if (c.ioases.at(h.ioas).areas.empty()) return Verb::ioas_map;
    return h.logging ? drawn : Verb::set_dirty;
  }
  return c.devices.empty() ? Verb::bind : Verb::hwpt_alloc;
}

Call CallGenerator::call(const Duel& duel) {
  Call call;
  const bool second = !duel.model().context(1).devices.empty() || theme_ == Theme::memory;
  call.context = chance(second ? 10 : 3) ? 1 : 0;
  call.verb = sensible(duel.model().context(call.context), verb());
  if (call.verb == Verb::close && call.context == 0) call.context = 1;
  fill(duel, call);
  return call;
}

std::size_t CallGenerator::unbound_device(const Duel& duel) {
  const std::size_t devices = duel.model().host().devices.size();
  std::vector<std::size_t> unbound;
  for (std::size_t d = 0; d < devices; ++d) {
    bool bound = false;
    for (unsigned c = 0; c < Duel::kContexts; ++c) {
      for (const auto& [unused, other] : duel.model().context(c).devices) bound = bound || other == d;
    }
    if (!bound) unbound.push_back(d);
  }
  return unbound.empty() || chance(10) ? below(devices + 1) : unbound[below(unbound.size())];
}

// A live object of a kind, named by the call that made it; number 0, which is no object, when there is none.
Id CallGenerator::live(const Duel& duel, unsigned context, Kind kind) {
  const slow::Context& c = duel.model().context(context);
  std::vector<ObjectId> ids;
  const auto keys = [&](const auto& map) {
    for (const auto& [id, unused] : map) ids.push_back(id);
  };
  switch (kind) {
    case Kind::device:
      keys(c.devices);
      break;
    case Kind::ioas:
      keys(c.ioases);
      break;
    case Kind::mapped_ioas:
      for (const auto& [id, space] : c.ioases) {
        if (!space.areas.empty()) ids.push_back(id);
      }
      break;
    case Kind::lazy_ioas:
      for (const auto& [id, space] : c.ioases) {
        if (!space.areas.empty() && space.hwpts.empty()) ids.push_back(id);
      }
      break;
    case Kind::backed_ioas:
      for (const auto& [id, space] : c.ioases) {
        if (!space.hwpts.empty()) ids.push_back(id);
      }
      break;
    case Kind::hwpt:
      keys(c.hwpts);
      break;
    case Kind::automatic_hwpt:
      for (const auto& [id, h] : c.hwpts) {
        if (h.automatic) ids.push_back(id);
      }
      break;
    case Kind::dirty_hwpt:
      for (const auto& [id, h] : c.hwpts) {
        if ((h.flags & sim::kHwptDirtyTracking) != 0) ids.push_back(id);
      }
      if (ids.empty()) keys(c.hwpts);
      break;
    case Kind::fault:
      ids.assign(c.faults.begin(), c.faults.end());
      break;
    case Kind::access:
      keys(c.accesses);
      break;
  }
  return ids.empty() ? Id{} : Id{duel.made_by(context, ids[below(ids.size())]), 0};
}

Id CallGenerator::pick(const Duel& duel, unsigned context, Kind kind) {
  const std::uint64_t luck = below(100);
  if (luck < 95) return live(duel, context, kind);
  if (luck < 98) return live(duel, context, one_of({Kind::device, Kind::ioas, Kind::hwpt, Kind::fault, Kind::access}));
  return {-1, static_cast<std::uint32_t>(one_of<std::uint64_t>({0, 1, 99, 0xffffffff}))};
}

Id CallGenerator::attached_device(const Duel& duel, unsigned context, std::uint32_t pasid) {
  std::vector<ObjectId> ids;
  for (const auto& [id, unused] : duel.model().context(context).devices) {
    if (duel.model().attached(context, id, pasid)) ids.push_back(id);
  }
  return ids.empty() ? live(duel, context, Kind::device) : Id{duel.made_by(context, ids[below(ids.size())]), 0};
}

Id CallGenerator::unattached_device(const Duel& duel, unsigned context, std::uint32_t pasid) {
  std::vector<ObjectId> ids;
  for (const auto& [id, unused] : duel.model().context(context).devices) {
    if (!duel.model().attached(context, id, pasid)) ids.push_back(id);
  }
  return ids.empty() ? live(duel, context, Kind::device) : Id{duel.made_by(context, ids[below(ids.size())]), 0};
}

const slow::Ioas* CallGenerator::ioas(const Duel& duel, unsigned context, const Id& id) const {
  for (const auto& [number, found] : duel.model().context(context).ioases) {
    if (duel.made_by(context, number) == id.result) return &found;
  }
  return nullptr;
}

std::uint64_t CallGenerator::iova(const slow::Ioas* ioas) {
  const std::uint64_t luck = below(100);
  if (luck < 45) return 0x1000000 + below(64) * kPage;
  if (luck < 55) return below(1U << 10) * kPage * 16;
  if (luck < 78 && ioas != nullptr && !ioas->areas.empty()) {
    const slow::Area& area = ioas->areas[below(ioas->areas.size())];
    return one_of({area.iova, area.iova, area.iova + area.length, area.iova + area.length, area.iova - kPage,
                   area.iova + kPage, area.iova + 0x800});
  }
  const std::uint64_t boundary = kBoundaries[below(std::size(kBoundaries))];
  if (luck < 96) return boundary;
  return boundary + one_of<std::uint64_t>({1, 0x800, 0 - kPage, 0 - std::uint64_t{1}});
}

std::uint64_t CallGenerator::length() {
  const std::uint64_t luck = below(100);
  if (theme_ == Theme::memory && luck < 40) return kPage * (4 + below(12));
  if (luck < 70) return kPage * (1 + below(4));
  if (luck < 80) return one_of<std::uint64_t>({0x10000, 0x8000, 0x40000, 0x200000, 0x400000, 0x300000});
  if (luck < 90) return one_of<std::uint64_t>({0x800, 0x1800});
  return one_of<std::uint64_t>({0, 1, 0x1001, kTop, kTop - 1, kTop - 0xfff, kTop / 2, std::uint64_t{1} << 47});
}

std::uint32_t CallGenerator::map_flags() {
  const std::uint64_t luck = below(100);
  if (theme_ == Theme::memory && chance(30))
    return sim::kMapFixedIova | one_of({sim::kMapReadable, sim::kMapWriteable, sim::kMapWriteable});
  if (luck < 55) return sim::kMapFixedIova | sim::kMapReadable | sim::kMapWriteable;
  if (luck < 75) return sim::kMapReadable | sim::kMapWriteable;
  if (luck < 86) return sim::kMapFixedIova | sim::kMapReadable;
  if (luck < 94) return sim::kMapFixedIova | sim::kMapWriteable;
  return static_cast<std::uint32_t>(below(16));
}

std::uint32_t CallGenerator::hwpt_flags() {
  const std::uint64_t luck = below(100);
  if (theme_ == Theme::dirty && chance(70)) return sim::kHwptDirtyTracking;
  if (theme_ == Theme::pasids && chance(60)) return sim::kHwptPasid;
  if (theme_ == Theme::owners && chance(30)) return sim::kHwptFaultIdValid;
  if (theme_ == Theme::sharing)
    return one_of<std::uint32_t>(
        {0, 0, sim::kHwptDirtyTracking, sim::kHwptNestParent, sim::kHwptNestParent, sim::kHwptFaultIdValid});
  if (luck < 40) return 0;
  if (luck < 60) return sim::kHwptDirtyTracking;
  if (luck < 72) return sim::kHwptPasid;
  if (luck < 80) return sim::kHwptNestParent;
  if (luck < 86) return sim::kHwptDirtyTracking | sim::kHwptPasid;
  if (luck < 92) return sim::kHwptFaultIdValid;
  return static_cast<std::uint32_t>(below(32));
}

std::uint32_t CallGenerator::pasid() {
  if (chance(theme_ == Theme::pasids ? 40 : 85)) return 0;
  return static_cast<std::uint32_t>(one_of<std::uint64_t>({1, 1, 1, 2, 31, 32, 1U << 19}));
}

// Mostly memory that is there, at its start or a little further.
void CallGenerator::memory(Call& call) {
  if (chance(91)) {
    call.memory = static_cast<int>(one_of<std::uint64_t>({0, 0, 1, 1, 2, 3}));
    call.va = one_of<std::uint64_t>({0, 0, 0, kPage, 2 * kPage, 0x4000, 0x200000, 0x800});
    return;
  }
  call.va = one_of<std::uint64_t>({0, 0x1000, kTop - 0xfff, kTop});
}

// What to attach to: an address space, a HWPT, or nonsense.
void CallGenerator::target(const Duel& duel, Call& call) {
  const Kind hwpt = theme_ == Theme::dirty && chance(60) ? Kind::dirty_hwpt
                    : chance(15)                         ? Kind::automatic_hwpt
                                                         : Kind::hwpt;
  const bool automatic = call.pasid == 0 ? chance(45) : chance(10);
  call.other = pick(duel, call.context, automatic ? Kind::ioas : hwpt);
}

void CallGenerator::fill(const Duel& duel, Call& call) {
  const unsigned c = call.context;
  switch (call.verb) {
    case Verb::bind:
      call.device = unbound_device(duel);
      break;
    case Verb::unbind:
    case Verb::get_hw_info:
      call.object = pick(duel, c, Kind::device);
      break;
    case Verb::ioas_allow_iovas:
      call.object = pick(duel, c, Kind::ioas);
      fill_allowed(call);
      break;
    case Verb::ioas_iova_ranges:
      call.object = pick(duel, c, Kind::ioas);
      break;
    case Verb::ioas_map:
    case Verb::ioas_map_file:
      fill_map(duel, call);
      break;
    case Verb::ioas_copy:
      fill_copy(duel, call);
      break;
    case Verb::ioas_unmap:
      fill_unmap(duel, call);
      break;
    case Verb::set_option:
    case Verb::get_option:
      call.option = chance(30) ? 0 : 1;
      if (call.option == 1 || chance(20)) call.object = pick(duel, c, Kind::ioas);
      call.source = chance(90) ? below(2) : 2;
      break;
    case Verb::hwpt_alloc:
      call.object = pick(duel, c, Kind::device);
      call.other = pick(duel, c, chance(95) ? Kind::ioas : Kind::hwpt);
      call.flags = hwpt_flags();
      if ((call.flags & sim::kHwptFaultIdValid) != 0) call.fault = pick(duel, c, Kind::fault);
      break;
    case Verb::set_dirty:
      call.object = pick(duel, c, chance(80) ? Kind::dirty_hwpt : Kind::hwpt);
      call.flags = chance(75);
      break;
    case Verb::get_dirty:
      fill_dirty(duel, call);
      break;
    case Verb::attach:
      call.pasid = pasid();
      call.object = chance(80) ? unattached_device(duel, c, call.pasid) : pick(duel, c, Kind::device);
      target(duel, call);
      break;
    case Verb::replace:
    case Verb::vfio_attach:
      call.pasid = pasid();
      call.object = chance(90) ? attached_device(duel, c, call.pasid) : pick(duel, c, Kind::device);
      target(duel, call);
      break;
    case Verb::detach:
      call.pasid = pasid();
      call.object = chance(80) ? attached_device(duel, c, call.pasid) : pick(duel, c, Kind::device);
      break;
    case Verb::access_create:
      call.object = pick(duel, c, Kind::ioas);
      call.flags = chance(60);
      break;
    case Verb::access_destroy:
      call.object = pick(duel, c, Kind::access);
      break;
    case Verb::destroy:
      call.object = pick(
          duel, c, one_of({Kind::hwpt, Kind::hwpt, Kind::hwpt, Kind::ioas, Kind::fault, Kind::device, Kind::access}));
      break;
    case Verb::dma_read:
    case Verb::dma_write:
      fill_dma(duel, call);
      break;
    case Verb::ioas_alloc:
    case Verb::fault_queue_alloc:
    case Verb::close:
    case Verb::count:
      break;
  }
}

void CallGenerator::fill_map(const Duel& duel, Call& call) {
  call.object = pick(duel, call.context, Kind::ioas);
  call.flags = map_flags();
  memory(call);
  // Whether a file that cannot be written may be pinned for writing is the file system's question.
  const bool file = call.verb == Verb::ioas_map_file;
  if (file && call.memory == Duel::kReadOnlyMemory) call.memory = 0;
  call.length = length();
  if (chance(1)) call.flags &= ~sim::kMapFixedIova, call.length = kTop / 2;  // too long to be rounded up
  call.iova = iova(ioas(duel, call.context, call.object));
}

void CallGenerator::fill_copy(const Duel& duel, Call& call) {
  // From a space whose pages are not pinned yet into one that pins them: that is where the limit can be met.
  const bool pins = theme_ == Theme::memory && chance(60);
  call.object = pick(duel, call.context, pins ? Kind::backed_ioas : Kind::ioas);
  call.other = pick(duel, call.context, pins ? Kind::lazy_ioas : chance(80) ? Kind::mapped_ioas : Kind::ioas);
  call.flags = map_flags();
  call.length = length();
  call.iova = iova(ioas(duel, call.context, call.object));
  const slow::Ioas* source = ioas(duel, call.context, call.other);
  call.source = iova(source);
  if (source == nullptr || source->areas.empty() || chance(20)) return;
  const slow::Area& area = source->areas[below(source->areas.size())];
  call.source = area.iova + (chance(20) ? kPage : 0);
  if (chance(80)) call.length = area.length;
}

void CallGenerator::fill_unmap(const Duel& duel, Call& call) {
  call.object = pick(duel, call.context, chance(80) ? Kind::mapped_ioas : Kind::ioas);
  const slow::Ioas* there = ioas(duel, call.context, call.object);
  call.iova = iova(there);
  call.length = length();
  if (chance(6)) call.iova = 0, call.length = kTop;
  if (chance(3)) call.iova = 0 - kPage, call.length = 2 * kPage;
  if (there == nullptr || there->areas.empty() || chance(25)) return;
  const std::size_t first = below(there->areas.size());
  const std::size_t last = std::min(there->areas.size() - 1, first + (chance(30) ? below(3) : 0));
  call.iova = there->areas[first].iova;
  call.length = there->areas[last].range().last - call.iova + 1;
  if (chance(15)) call.length += kPage;
  if (chance(10)) call.length -= kPage;
  if (chance(10)) call.iova -= kPage;
}

void CallGenerator::fill_allowed(Call& call) {
  const auto ranges = chance(30) ? 0 : 1 + below(3);
  for (std::uint64_t r = 0; r < ranges; ++r) {
    const std::uint64_t start =
        chance(80) ? one_of<std::uint64_t>({0x1000000, 0x1010000, 0x2000000, 0x10000, 0x100000000}) + below(4) * kPage
                   : kBoundaries[below(std::size(kBoundaries))];
    const std::uint64_t size = one_of<std::uint64_t>({0x10000, 0x3000, 0x100000, 0x1000, 0x1801, 1});
    call.ranges.push_back({start, start > kTop - (size - 1) ? kTop : start + (size - 1)});
  }
}

void CallGenerator::fill_dirty(const Duel& duel, Call& call) {
  call.object = pick(duel, call.context, chance(80) ? Kind::dirty_hwpt : Kind::hwpt);
  call.flags = chance(40);
  call.source = one_of<std::uint64_t>({kPage, kPage, kPage, 0x800, 0x200000, 0x8000, chance(20) ? 0 : kPage});
  call.iova = iova(nullptr);
  call.length = std::min<std::uint64_t>(length(), std::uint64_t{1} << 24);
  for (const auto& [id, h] : duel.model().context(call.context).hwpts) {
    const auto& ioases = duel.model().context(call.context).ioases;
    if (duel.made_by(call.context, id) != call.object.result || chance(20)) continue;
    const auto& areas = ioases.at(h.ioas).areas;
    if (areas.empty()) continue;
    const slow::Area& area = areas[below(areas.size())];
    call.iova = area.iova;
    call.length = area.length + one_of<std::uint64_t>({0, 0, kPage, 0x10000, 0x200000});
  }
  if (call.length == 0) call.iova |= kPage;  // from 0, no bytes would mean all of them
  if (chance(4)) call.iova = 0 - kPage, call.length = 2 * kPage;
}

void CallGenerator::fill_dma(const Duel& duel, Call& call) {
  const slow::Model& model = duel.model();
  call.device = below(model.host().devices.size());
  call.pasid = theme_ == Theme::pasids && chance(50) ? 1 : 0;
  call.iova = 0x1000000 + below(0x4000);
  for (const auto& [id, d] : model.context(call.context).devices) {
    const auto hwpt = model.attached(call.context, id, call.pasid);
    if (!hwpt || chance(30)) continue;
    const slow::Context& c = model.context(call.context);
    const auto& areas = c.ioases.at(c.hwpts.at(*hwpt).ioas).areas;
    if (areas.empty()) continue;
    const slow::Area* found = &areas[below(areas.size())];
    for (const slow::Area& other : areas) {  // what may not be read or written is of interest
      if (chance(70) && other.access != (sim::kMapReadable | sim::kMapWriteable)) found = &other;
    }
    const slow::Area& area = *found;
    call.device = d;
    call.iova = area.iova + below(area.length + (chance(5) ? 1 : 0));
  }
  // Writes into the interrupt window are interrupts.
  if (call.iova >= 0xfee00000 && call.iova <= 0xfeefffff) call.iova = 0x1000000;
}

}  // namespace ioplan::traces

// A sequence of calls on simulated hosts, as a value: drawn by a generator, replayed, shrunk, and kept as text.
//
// Calls name objects by the call that made them (`r3` is what call 3 returned), so that a trace stays meaningful when
// calls are taken out of it, and memory by its number (`m1+0x2000`). A trace begins with the host, in a few words a
// line:
//
//   unit intel-scalable
//   device 0 group 0 pasid-bits=5
//   memlock 64
//   call ioas_alloc
//   call ioas_map ioas=r0 flags=7 va=m0+0x1000 length=0x1000 iova=0x100000
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backends/sim/iommufd.h"
#include "engine/base/range.h"
#include "engine/model/host.h"

namespace ioplan::traces {

enum class UnitKind : std::uint8_t {
  intel_legacy,       // no scalable mode, snoop control
  intel_no_snoop,     // the same without snoop control
  intel_narrow,       // 39 bits
  intel_scalable,     // first and second stage, dirty tracking, nesting, PASID
  intel_second_only,  // scalable mode without first stage
  amd,
  amd_v2,  // no host tables
  smmuv3,
  smmuv3_second_only,
  smmuv2,
  smmuv2_incoherent,
  virtio,
  virtio_coarse,  // 64K pages
  riscv,
  s390,
  mock,
  count
};
inline constexpr std::array<std::string_view, static_cast<std::size_t>(UnitKind::count)> kUnitKindNames = {
    "intel-legacy",
    "intel-no-snoop",
    "intel-narrow",
    "intel-scalable",
    "intel-second-only",
    "amd",
    "amd-v2",
    "smmuv3",
    "smmuv3-second-only",
    "smmuv2",
    "smmuv2-incoherent",
    "virtio",
    "virtio-coarse",
    "riscv",
    "s390",
    "mock"};

// What a device can have beyond its driver's own reserved regions, as bits.
enum DeviceTrait : std::uint32_t {
  kDirectRegion = 1,
  kRelaxableRegion = 2,
  kOrdinaryRegion = 4,  // [0xf0000000, 0xf00fffff]
  kSecondWindow = 8,    // a software MSI window beside the driver's own
  kUnsafeInterrupts = 16,
  kNoDirty = 32,            // mock
  kCanForceWriteBack = 64,  // smmuv3
};
inline constexpr std::array<std::string_view, 7> kDeviceTraitNames = {
    "direct", "relaxable", "ordinary", "second-window", "unsafe-interrupts", "no-dirty", "canwbs"};

struct SketchUnit {
  UnitKind kind = UnitKind::intel_legacy;
  bool few_domain_ids = false;  // one
};

struct SketchDevice {
  std::size_t unit = 0;
  std::uint32_t group = 0;
  std::uint32_t traits = 0;
  unsigned pasid_bits = 0;
};

struct Sketch {
  std::vector<SketchUnit> units;
  std::vector<SketchDevice> devices;
  std::uint64_t memlock_pages = 0;  // 0: no limit
  bool cap_sys_resource = true;
  sim::Hazards hazards;
};

Host host_of(const Sketch& sketch);
std::string device_name(std::size_t device);  // its name in host_of
sim::MachineOptions options_of(const Sketch& sketch);

enum class Verb : std::uint8_t {
  bind,
  unbind,
  ioas_alloc,
  ioas_allow_iovas,
  ioas_iova_ranges,
  ioas_map,
  ioas_map_file,
  ioas_copy,
  ioas_unmap,
  set_option,
  get_option,
  hwpt_alloc,
  fault_queue_alloc,
  get_hw_info,
  set_dirty,
  get_dirty,
  attach,
  replace,
  vfio_attach,
  detach,
  access_create,
  access_destroy,
  destroy,
  dma_read,
  dma_write,
  close,
  count
};
inline constexpr std::array<std::string_view, static_cast<std::size_t>(Verb::count)> kVerbNames = {
    "bind",          "unbind",         "ioas_alloc",        "ioas_allow_iovas", "ioas_iova_ranges",
    "ioas_map",      "ioas_map_file",  "ioas_copy",         "ioas_unmap",       "set_option",
    "get_option",    "hwpt_alloc",     "fault_queue_alloc", "get_hw_info",      "set_dirty",
    "get_dirty",     "attach",         "replace",           "vfio_attach",      "detach",
    "access_create", "access_destroy", "destroy",           "dma_read",         "dma_write",
    "close"};

// An object id: the result of an earlier call, or a number.
struct Id {
  int result = -1;
  std::uint32_t number = 0;
};

struct Call {
  Verb verb = Verb::ioas_alloc;
  unsigned context = 0;
  std::size_t device = 0;  // bind, DMA: index; one past the end is a device that does not exist
  Id object;               // the object acted upon: device, IOAS, HWPT, ...
  Id other;                // pt, source IOAS
  Id fault;
  std::uint32_t flags = 0;  // map, HWPT; a switch for set_dirty, get_dirty (no-clear), access_create (pins)
  std::uint32_t option = 0;
  std::uint32_t pasid = 0;
  int memory = -1;  // `va` counts from this memory; -1: from 0. map_file: -1 is a bad fd
  std::uint64_t va = 0;
  std::uint64_t length = 0;
  std::uint64_t iova = 0;
  std::uint64_t source = 0;  // copy: source IOVA; get_dirty: page size; set_option: value
  std::vector<Range> ranges;
};

struct Trace {
  Sketch sketch;
  std::vector<Call> calls;
};

std::string to_text(const Call& call);
std::string to_text(const Trace& trace);
// Requires: text that to_text wrote. Aborts on anything else: kept traces are part of the program.
Trace parse_trace(std::string_view text);

}  // namespace ioplan::traces

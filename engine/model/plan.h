// The answer. A Plan is written as a document (engine/document/plan_document.h); everything in it is a fact or a
// prediction that others can doubt: it names no file, no line and no time, so equal facts give equal bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/range.h"
#include "engine/model/facts.h"
#include "engine/model/host.h"
#include "engine/model/policy.h"
#include "engine/model/virtual_machine.h"

namespace ioplan {

enum class Verdict : std::uint8_t { feasible, infeasible, undecided };
inline constexpr std::array<std::string_view, 3> kVerdictNames = {"feasible", "infeasible", "undecided"};

enum class HwptKind : std::uint8_t { paging, nest_parent, nested };
inline constexpr std::array<std::string_view, 3> kHwptKindNames = {"paging", "nest-parent", "nested"};

enum class PageTableFormat : std::uint8_t { vtd_ss, x86_64, amdv1, arm_lpae, riscv, s390, virtio, mock };
inline constexpr std::array<std::string_view, 8> kPageTableFormatNames = {"vtd-ss", "x86-64", "amdv1",  "arm-lpae",
                                                                          "riscv",  "s390",   "virtio", "mock"};

// IOMMU_HWPT_ALLOC_* flags that a plan may use, as bits.
enum HwptFlag : std::uint8_t { kDirtyTracking = 1, kNestParent = 2, kPasid = 4 };
inline constexpr std::array<std::string_view, 3> kHwptFlagNames = {"dirty-tracking", "nest-parent", "pasid"};
inline constexpr unsigned kHwptFlagSets = 8;

// What carries a plan out: HWPTs of iommufd, each allocated for a chosen device, or domains of a VFIO type1 container,
// which groups join in a chosen order (engine/solve/container.h).
enum class KernelInterface : std::uint8_t { iommufd, type1 };
inline constexpr std::array<std::string_view, 2> kKernelInterfaceNames = {"iommufd", "type1"};

// One address space: what is mapped and what may not be.
struct PlannedIoas {
  std::string id;  // "ioas0"
  std::string vm;
  std::vector<Range> ranges;             // usable IOVA after every planned attach
  std::vector<ReservedRegion> reserved;  // of the attached devices, merged by type; sorted
  std::uint64_t alignment = 1;           // bytes
  std::vector<MemoryRange> memory;       // what is mapped; IOVA = GPA
  std::uint64_t backing = 4096;
  std::vector<Range> allowed;         // IOVA that nothing may reserve: memory, and memory promised; empty: the memory
  std::vector<std::string> retained;  // unplugged, but their VFIO files stay with KVM (engine/lifecycle/README.md 4)

  friend bool operator==(const PlannedIoas&, const PlannedIoas&) = default;
};

// One hardware page table with its predicted attributes.
struct PlannedHwpt {
  std::string id;  // "hwpt0"
  std::string ioas;
  HwptKind kind = HwptKind::paging;
  std::string allocator;  // host device id
  std::uint8_t flags = 0;
  Driver driver = Driver::intel;
  unsigned stage = 1;
  PageTableFormat format = PageTableFormat::x86_64;
  unsigned levels = 0;        // at allocation; AMD v1 tables grow from 3; 0 where the format has none (virtio)
  unsigned address_bits = 0;  // the table's width
  Range aperture;
  std::uint64_t page_sizes = 0;  // bitmap
  bool enforce_cache_coherency = false;
  bool automatic = false;  // made by attaching to the IOAS (smmuv2, type1), not by HWPT_ALLOC
  std::uint64_t page_table_bytes = 0;
  std::vector<std::string> devices;  // host device ids, ascending

  friend bool operator==(const PlannedHwpt&, const PlannedHwpt&) = default;
};

struct KvmVerdict {
  bool noncoherent_dma = false;
  std::vector<std::string> because;  // host device ids, then mdev UUIDs

  friend bool operator==(const KvmVerdict&, const KvmVerdict&) = default;
};

struct Resources {
  std::uint64_t pinned_bytes = 0;
  std::uint64_t page_table_bytes = 0;
  std::uint64_t memlock_bytes = 0;  // what libvirt must allow

  friend bool operator==(const Resources&, const Resources&) = default;
};

enum class ProofKind : std::uint8_t { witness, smt, none };
inline constexpr std::array<std::string_view, 3> kProofKindNames = {"witness", "smt", "none"};

struct Optimality {
  std::uint64_t hwpts = 0;
  std::uint64_t lower_bound = 0;  // proved
  ProofKind proof = ProofKind::none;
  std::vector<std::string> witness;  // lowest device of each group of a set no two of which may share
  std::string smt2;                  // the unsatisfiable "one fewer", when proof is smt; may be large
  std::array<bool, 5> proved{};      // by Objective: is the value below proved optimal
};

struct ObjectiveValues {
  std::array<std::uint64_t, 5> by_objective{};  // by Objective
  std::uint64_t& operator[](Objective o) { return by_objective[static_cast<std::size_t>(o)]; }
  std::uint64_t operator[](Objective o) const { return by_objective[static_cast<std::size_t>(o)]; }
  friend bool operator==(const ObjectiveValues&, const ObjectiveValues&) = default;
};

// A default of a stock machine that the answer rests on.
struct Assumption {
  std::string fact;   // path: "kernel.release", "iommus.dmar0.domains_used", "devices.reserved"
  std::string value;
  std::vector<std::string> subjects;  // ids it was assumed for, when the path names many
  friend auto operator<=>(const Assumption&, const Assumption&) = default;
};

// One member of a minimal conflict. `because` is a fact in the user's words.
struct Conflict {
  std::string rule;
  std::vector<std::string> subjects;
  std::string because;
};

// A change that was planned again and makes the request feasible.
struct Fix {
  std::string change;                 // machine word: remove-device, drop-need, relax-policy, ...
  std::vector<std::string> subjects;  // device ids, need, policy field or rule name
  std::string text;
};

// An absent fact that decides the answer, and two values that give different answers.
struct UnknownFact {
  std::string fact;  // path
  std::string first_value, first_answer;
  std::string second_value, second_answer;
};

// Those from kvm_file_add on are of running layouts only (engine/lifecycle); the others also lead from nothing to a plan.
enum class StepKind : std::uint8_t {
  bind,
  ioas_alloc,
  allow_iovas,
  hwpt_alloc,
  attach,
  attach_ioas,
  map,
  unbind,
  kvm_file_add,
  kvm_file_del,
  replace,
  detach,
  hwpt_destroy,
  unmap,
  ioas_destroy
};
inline constexpr std::array<std::string_view, 15> kStepKindNames = {
    "bind",         "ioas-alloc",   "allow-iovas", "hwpt-alloc", "attach",       "attach-ioas", "map",         "unbind",
    "kvm-file-add", "kvm-file-del", "replace",     "detach",     "hwpt-destroy", "unmap",       "ioas-destroy"};

// One thing to do, in order. Unused fields are empty.
struct Step {
  StepKind kind = StepKind::bind;
  std::string device;  // of bind, unbind, kvm-file-*, hwpt-alloc (allocator), attach*, replace (one of the group), detach
  std::string ioas;
  std::string hwpt;
  std::uint8_t flags = 0;
  std::vector<Range> ranges;  // allow-iovas
  Range iova;                 // map, unmap
  bool writeable = true;      // map, unmap

  friend bool operator==(const Step&, const Step&) = default;
};

// A feature that the guest of a VM sees, and that hot-plug in frozen mode leaves as it is (lifecycle/README.md 8).
struct FrozenFeature {
  std::string vm;
  std::string feature;  // page_sizes, address_bits, granule, dirty_tracking, noncoherent_dma
  std::string value;
  std::vector<std::string> because;  // host device ids, then mdev UUIDs: without them it would be otherwise

  friend bool operator==(const FrozenFeature&, const FrozenFeature&) = default;
};

// An expected plug that will succeed in frozen mode, in every order with the others (lifecycle/README.md 7).
struct Promise {
  std::string vm;
  std::string device;  // empty: memory
  std::string hwpt;    // which the device will join
  Range memory;        // GPA, when it is memory

  friend bool operator==(const Promise&, const Promise&) = default;
};

// An expectation that cannot be promised, and the rule that refuses.
struct Unpromised {
  std::string vm;
  std::string subject;  // device id, or "memory"
  std::string rule;
  std::string because;

  friend bool operator==(const Unpromised&, const Unpromised&) = default;
};

struct Plan {
  KernelInterface interface = KernelInterface::iommufd;
  std::string fingerprint;  // of the host's facts
  std::vector<std::string> vms;
  Verdict verdict = Verdict::infeasible;
  std::vector<PlannedIoas> ioas;
  std::vector<PlannedHwpt> hwpts;
  KvmVerdict kvm;
  Resources resources;
  Optimality optimality;
  ObjectiveValues objectives;
  std::vector<std::string> preferences;  // preferred needs that are met: "vm0.dirty_tracking"
  std::vector<FrozenFeature> frozen;     // by VM
  std::vector<Promise> promises;         // by VM: memory, then devices
  std::vector<Unpromised> unpromised;
  std::vector<Assumption> assumptions;
  std::vector<Conflict> conflict;
  std::vector<Fix> fixes;
  std::vector<UnknownFact> unknown;
  std::vector<Step> steps;
};

}  // namespace ioplan

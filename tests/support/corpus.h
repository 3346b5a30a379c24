// The corpus of real machines as documents.
//
// ../shared/corpus (see its README.md) holds what people's boot logs, ACPI tables and group listings say about real
// hosts: register values, DRHD scopes, IOMMU groups, reserved regions. This reader turns every record of it into a Host
// document, and into the VMs that tests plan on it. It states facts only: what a record does not say stays absent, so
// that a plan for that machine is either independent of the fact or undecided. Where a device's unit follows from the
// record (one unit, a DRHD scope, the order in which the kernel numbered the groups, ...) `unit_evidence` says from
// what.
//
// The corpus lives beside the project, not in it: tests that need it skip when it is not there.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ioplan::corpus {

// IOPLAN_CORPUS, or ../shared/corpus beside the source tree; nothing when there is no corpus.
std::optional<std::filesystem::path> root();

// VT-d registers as the kernel's log prints them.
struct VtdUnit {
  std::string id;
  std::uint64_t cap = 0;
  std::uint64_t ecap = 0;
};

// A decoded field whose values differ between the units of one host, as the corpus states it: one value for each unit.
struct Difference {
  std::string field;
  std::vector<std::uint64_t> values;
};

struct Machine {
  std::string id;
  std::string record;   // "intel.yaml: intel-acer-..."
  std::string source;   // as recorded, one line
  std::string segment;  // intel.yaml: client or server_or_hedt
  std::string arch;     // x86_64 or aarch64
  std::string vendor;   // intel, amd or arm
  std::string host;     // the Host document
  bool registers_known = false;
  bool synthetic_devices = false;        // no listing of the machine's devices: one made up for each unit
  std::string unit_evidence;             // what places devices behind units; empty when nothing does
  std::vector<std::string> passthrough;  // devices that a VM could be given, ascending groups
  std::vector<VtdUnit> vtd;              // units whose registers are known
  std::vector<Difference> differences;   // intel.yaml: unit_differences
};

// Every record: intel, amd, arm, acpi_dmar, acpi_ivrs, groups that belong to no other record, reserved_regions.
// Sorted by id. Throws what yaml-cpp throws when the corpus is not what its README says.
std::vector<Machine> read(const std::filesystem::path& corpus_root);

// A VM with every device of Machine::passthrough, and what is asked of it.
enum class Ask : std::uint8_t { plain, dirty_tracking, strict };
inline constexpr std::array<std::string_view, 3> kAskNames = {"plain", "dirty-tracking", "strict"};
std::string vm_documents(const Machine& machine, Ask ask);

// The smallest host that shows what the machine's units do together: one device behind each of Machine::vtd, and a VM
// with all of them.
std::string one_device_per_unit(const Machine& machine);

// The address of the device that is made up for the unit of this index, on buses that no record uses as root.
std::string synthetic_device(std::size_t unit);

}  // namespace ioplan::corpus

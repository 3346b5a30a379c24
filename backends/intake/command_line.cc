#include "backends/intake/command_line.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

namespace ioplan::intake {

namespace {

constexpr std::array<std::string_view, 15> kPrefixes = {
    "intel_iommu=", "amd_iommu=",     "amd_iommu_intr=", "amd_iommu_dump", "iommu=",  "iommu.",     "intremap=",   "nointremap",
    "ivrs_",        "arm-smmu",       "arm_smmu",        "vfio",           "iommufd", "pcie_acs_override=", "mem_encrypt="};

bool concerns_iommus(std::string_view option) {
  return std::ranges::any_of(kPrefixes, [&](std::string_view p) { return option.starts_with(p); });
}

std::vector<std::string_view> parts_of(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of(separators), text.size());
    if (end > 0) parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

// The comma-separated values of an option, which may be given several times.
std::vector<std::string_view> values_of(std::string_view options, std::string_view name) {
  std::vector<std::string_view> values;
  for (std::string_view option : parts_of(options, " ")) {
    if (!option.starts_with(name)) continue;
    for (const std::string_view value : parts_of(option.substr(name.size()), ",")) values.push_back(value);
  }
  return values;
}

class Conclusions {
 public:
  Conclusions(std::string_view options, const std::string& source, Findings& findings)
      : options_(options), source_(source), findings_(findings) {}

  // iommu.c intel_iommu_setup compares beginnings; the last word counts.
  void intel() {
    bool superpages_off = false;
    std::optional<bool> scalable;
    for (const std::string_view value : values_of(options_, "intel_iommu=")) {
      superpages_off |= value.starts_with("sp_off");
      if (value.starts_with("sm_on")) scalable = true;
      if (value.starts_with("sm_off")) scalable = false;
    }
    conclude(KernelFact::intel_iommu_sp_off, superpages_off);
    if (scalable) return conclude(KernelFact::intel_iommu_sm, *scalable);
    findings_.miss(kernel(KernelFact::intel_iommu_sm), "the command line has neither sm_on nor sm_off",
                   "CONFIG_INTEL_IOMMU_SCALABLE_MODE_DEFAULT_ON of the kernel's configuration");
  }

  // amd/init.c parse_amd_iommu_options: the last of each pair counts.
  void amd() {
    bool v2 = false, no_huge_pages = false, v2_sizes = false;
    for (const std::string_view value : values_of(options_, "amd_iommu=")) {
      if (value.starts_with("pgtbl_v")) v2 = value.starts_with("pgtbl_v2");
      if (!value.starts_with("nohugepages") && !value.starts_with("v2_pgsizes_only")) continue;
      no_huge_pages = value.starts_with("nohugepages");
      v2_sizes = !no_huge_pages;
    }
    conclude(KernelFact::amd_iommu_pgtbl_v2, v2);
    conclude(KernelFact::amd_iommu_nohugepages, no_huge_pages);
    conclude(KernelFact::amd_iommu_v2_pgsizes_only, v2_sizes);
  }

  void every_driver() {
    for (const std::string_view option : parts_of(options_, " ")) {
      const bool unsafe = option.starts_with("vfio_iommu_type1.allow_unsafe_interrupts=") || option.starts_with("iommufd.allow_unsafe_interrupts=");
      if (unsafe && (option.ends_with("=1") || option.ends_with("=y") || option.ends_with("=Y"))) conclude(KernelFact::allow_unsafe_interrupts, true);
      if (option == "intremap=off" || option == "nointremap") conclude(KernelFact::isolated_msi, false);
    }
  }

 private:
  void conclude(KernelFact fact, bool value) {
    findings_.state(kernel(fact), std::uint64_t{value}, source_, Standing::concluded);
  }

  std::string_view options_;
  const std::string& source_;
  Findings& findings_;
};

}  // namespace

std::string iommu_options(std::string_view command_line) {
  std::string out;
  for (const std::string_view option : parts_of(command_line, " \t")) {
    if (concerns_iommus(option)) out += (out.empty() ? "" : " ") + std::string(option);
  }
  return out;
}

void state_command_line(std::string_view command_line, DriverSet drivers, const std::string& source, Findings& findings) {
  const std::string options = iommu_options(command_line);
  if (!options.empty()) findings.state(kernel("command_line"), options, source);
  Conclusions conclusions(options, source, findings);
  if ((drivers & driver_set(Driver::intel)) != 0) conclusions.intel();
  if ((drivers & driver_set(Driver::amd)) != 0) conclusions.amd();
  conclusions.every_driver();
}

}  // namespace ioplan::intake

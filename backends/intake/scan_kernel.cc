// The running kernel: its options, its CPU, its memory.
#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <string_view>

#include "backends/intake/command_line.h"
#include "backends/intake/sysfs.h"

namespace ioplan::intake {

namespace {

const std::string kCommandLine = "/proc/cmdline";
const std::string kCpu = "/proc/cpuinfo";
const std::string kInterrupts = "/proc/interrupts";
constexpr std::size_t kStart = 65536;  // of files that grow with the machine: what is looked for stands at the start

// Calls `each(line)` until it says stop.
template <class F>
void each_line(std::string_view text, F each) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (!each(text.substr(0, end))) return;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// A command line names file systems, hosts and consoles; only the options that concern IOMMUs are kept.
void scan_command_line(Sysfs& sysfs, DriverSet drivers) {
  const auto line = sysfs.text(kCommandLine, kStart, iommu_options);
  if (!line) return sysfs.findings().miss(kernel("command_line"), kCommandLine + " cannot be read", {});
  state_command_line(*line, drivers, kCommandLine, sysfs.findings());
}

// ---------------------------------------------------------------- processor and interrupts

// Of the first processor: serial numbers of some machines stand behind the last.
std::string cpu_excerpt(std::string_view text) {
  std::string kept;
  each_line(text, [&](std::string_view line) {
    const bool wanted = line.starts_with("vendor_id") || line.starts_with("flags") || line.starts_with("address sizes");
    if (wanted) (kept += line) += '\n';
    return !line.empty();
  });
  return kept;
}

std::string_view after_colon(std::string_view line) {
  const std::size_t colon = line.find(':');
  line.remove_prefix(colon == std::string_view::npos ? line.size() : colon + 1);
  return line.starts_with(' ') ? line.substr(1) : line;
}

// Linux clears la57 and sev_snp where it does not use them (arch/x86/kernel/cpu/common.c, amd.c).
void scan_cpu(Sysfs& sysfs, DriverSet drivers) {
  const auto text = sysfs.text(kCpu, kStart, cpu_excerpt);
  each_line(text.value_or(""), [&](std::string_view line) {
    const std::string_view value = after_colon(line);
    if (line.starts_with("vendor_id") && !value.empty()) sysfs.findings().state(kernel("cpu_vendor"), std::string(value), kCpu);
    if (line.starts_with("address sizes")) {
      const auto bits = number_of(value.substr(0, value.find(' ')), 10);
      if (bits) sysfs.findings().state(kernel(KernelFact::phys_bits), *bits, kCpu);
    }
    if (line.starts_with("flags") && (drivers & driver_set(Driver::amd)) != 0) {
      const auto flags = words_of(value);
      const auto has = [&](std::string_view flag) { return std::uint64_t{std::ranges::find(flags, flag) != flags.end()}; };
      sysfs.findings().state(kernel(KernelFact::la57), has("la57"), kCpu);
      sysfs.findings().state(kernel(KernelFact::amd_snp), has("sev_snp"), kCpu);
    }
    return true;
  });
}

// The first line of an interrupt that came through an I/O APIC.
std::string interrupt_excerpt(std::string_view text) {
  std::string kept;
  each_line(text, [&](std::string_view line) {
    for (const std::string_view word : words_of(line)) {
      if (word == "IR-IO-APIC" || word == "IO-APIC") kept = std::string(word) + "\n";
    }
    return kept.empty();
  });
  return kept;
}

// With interrupt remapping the I/O APIC is named "IR-IO-APIC" (arch/x86/kernel/apic/io_apic.c), and Intel's and AMD's
// remapping isolates MSIs (IRQ_DOMAIN_FLAG_ISOLATED_MSI).
void scan_interrupts(Sysfs& sysfs) {
  const std::string chip = sysfs.text(kInterrupts, kStart, interrupt_excerpt).value_or("");
  if (!chip.empty()) return sysfs.findings().state(kernel(KernelFact::isolated_msi), std::uint64_t{chip == "IR-IO-APIC"}, kInterrupts);
  sysfs.findings().miss(kernel(KernelFact::isolated_msi), kInterrupts + " shows no I/O APIC", "`ioplan import --dmesg` with the boot log");
}

// iommufd's parameter counts for plans on iommufd; type1's where iommufd is not there.
void scan_unsafe_interrupts(Sysfs& sysfs) {
  for (const char* module : {"iommufd", "vfio_iommu_type1"}) {
    const std::string path = std::string("/sys/module/") + module + "/parameters/allow_unsafe_interrupts";
    const std::string value = sysfs.text(path).value_or("");
    if (value != "Y" && value != "N") continue;
    return sysfs.findings().state(kernel(KernelFact::allow_unsafe_interrupts), std::uint64_t{value == "Y"}, path);
  }
}

// ---------------------------------------------------------------- memory

// A table of 8-byte entries fills a page, so a huge page of the next level is the page size squared over eight. On s390
// tables are not pages, but its page size is known from the architecture.
void scan_page_size(Sysfs& sysfs) {
  const std::string path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
  const auto huge = sysfs.decimal(path);
  if (!huge || !std::has_single_bit(*huge)) return;
  for (const unsigned page : {12U, 14U, 16U}) {
    if (*huge == std::uint64_t{1} << (2 * page - 3)) {
      return sysfs.findings().state(kernel(KernelFact::page_size), std::uint64_t{1} << page, path);
    }
  }
}

std::string memory_excerpt(std::string_view text) {
  std::string kept;
  each_line(text, [&](std::string_view line) {
    if (line.starts_with("MemTotal:")) (kept += line) += '\n';
    return kept.empty();
  });
  return kept;
}

void scan_memory(Sysfs& sysfs) {
  const std::string path = "/proc/meminfo";
  const auto line = sysfs.text(path, kStart, memory_excerpt);
  const auto words = words_of(line ? std::string_view(*line) : std::string_view());
  if (words.size() != 3 || words[2] != "kB") return;
  if (const auto kib = number_of(words[1], 10)) sysfs.findings().state(kernel(KernelFact::memory_kib), *kib, path);
}

void scan_huge_pages(Sysfs& sysfs) {
  const std::string folder = "/sys/kernel/mm/hugepages";
  constexpr std::string_view kPrefix = "hugepages-", kSuffix = "kB";
  std::vector<HugePages> pools;
  for (const std::string& name : sysfs.list(folder)) {
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    const std::string_view digits = std::string_view(name).substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
    const auto kib = number_of(digits, 10);
    const auto total = sysfs.decimal(folder + "/" + name + "/nr_hugepages");
    const auto free = sysfs.decimal(folder + "/" + name + "/free_hugepages");
    if (kib && *kib < std::uint64_t{1} << 50 && total && free) pools.push_back({*kib << 10, *total, *free});
  }
  if (!pools.empty()) sysfs.findings().state(kernel("hugepages"), std::move(pools), folder);
}

}  // namespace

void scan_kernel(Sysfs& sysfs, DriverSet drivers) {
  sysfs.state_text(kernel("arch"), "/proc/sys/kernel/arch");
  if (const auto release = sysfs.text("/proc/sys/kernel/osrelease"); release && !release->empty()) {
    sysfs.findings().state(kernel("release"), *release, "/proc/sys/kernel/osrelease");
  } else {
    sysfs.findings().miss(kernel("release"), "/proc/sys/kernel/osrelease cannot be read", {});
  }
  scan_command_line(sysfs, drivers);
  scan_cpu(sysfs, drivers);
  const bool remaps = (drivers & (driver_set(Driver::intel) | driver_set(Driver::amd))) != 0;
  if (remaps || sysfs.text("/proc/sys/kernel/arch") == "x86_64") scan_interrupts(sysfs);
  scan_unsafe_interrupts(sysfs);
  scan_page_size(sysfs);
  scan_memory(sysfs);
  scan_huge_pages(sysfs);
}

}  // namespace ioplan::intake

#include "backends/intake/kernel_log.h"

#include <algorithm>
#include <array>

namespace ioplan::intake {

namespace {

bool begins_boot(const LogLine& line) { return line.text.starts_with("Linux version "); }

// "Linux version 6.8.0-51-generic (buildd@...) ..."
bool read_release(Cursor at, std::uint32_t line, KernelLog& log) {
  if (!at.skip("Linux version ")) return false;
  log.release = Noted<std::string>{std::string(at.word()), line};
  return true;
}

// A cut one settles nothing.
bool read_command_line(Cursor at, std::uint32_t line, KernelLog& log) {
  if (!at.skip("Command line: ") && !at.skip("Kernel command line: ")) return false;
  if (!log.command_line && !at.cut()) log.command_line = Noted<std::string>{std::string(at.rest()), line};
  return true;
}

// "DMI: Acer Nitro AN517-54/Kamiq_TLS, BIOS V1.17 06/02/2022"
bool read_machine(Cursor at, std::uint32_t line, KernelLog& log) {
  const bool dmi = at.skip("DMI: ");
  if (!dmi && !at.skip("Machine model: ")) return false;
  const std::string_view name = dmi ? at.rest().substr(0, at.rest().find(", BIOS ")) : at.rest();
  if (!name.empty() && !log.machine) log.machine = Noted<std::string>{std::string(name), line};
  return true;
}

// What only one architecture's boot code prints. arm64 prints a CPU number of ten digits, 32-bit Arm does not.
bool read_arch(Cursor at, std::uint32_t line, KernelLog& log) {
  if (log.arch) return false;
  if (at.rest().starts_with("BIOS-e820: ") || at.rest().starts_with("x86/")) {
    log.arch = Noted<std::string>{"x86_64", line};
  } else if (at.skip("Booting Linux on physical CPU 0x") && at.until(' ').size() == 10) {
    log.arch = Noted<std::string>{"aarch64", line};
  }
  return false;  // the same line may say more
}

// "smpboot: CPU0: Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz (family: 0x6, ...)"
bool read_cpu(Cursor at, std::uint32_t line, KernelLog& log) {
  if (!at.skip("smpboot: CPU0: ")) return false;
  if (at.skip("Intel")) log.cpu_vendor = Noted<std::string>{"GenuineIntel", line};
  if (at.skip("AMD")) log.cpu_vendor = Noted<std::string>{"AuthenticAMD", line};
  return true;
}

void read_message(const LogLine& line, KernelLog& log) {
  using Read = bool (*)(Cursor, std::uint32_t, KernelLog&);
  static constexpr std::array<Read, 5> kReads = {read_arch, read_release, read_command_line, read_machine, read_cpu};
  const auto reads = [&](Read read) { return read(Cursor(line), line.number, log); };
  static_cast<void>(std::ranges::any_of(kReads, reads) || read_dmar_message(line, log.dmar) ||
                    read_amd_vi_message(line, log.amd) || read_smmu_message(line, log.smmu) ||
                    read_device_message(line, log.devices));
}

// Where boots begin. A report may repeat "Linux version" from /proc: boots begin with the prefixes that the first has.
std::vector<std::size_t> boot_starts(const std::vector<LogLine>& lines) {
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!begins_boot(lines[i])) continue;
    if (starts.empty() || lines[i].prefixes == lines[starts[0]].prefixes) starts.push_back(i);
  }
  return starts;
}

KernelLog read_boot(const std::vector<LogLine>& lines, std::size_t begin, std::size_t end) {
  KernelLog log;
  for (std::size_t i = begin; i < end; ++i) read_message(lines[i], log);
  if (begin < lines.size()) log.first_line = lines[begin].number;
  return log;
}

}  // namespace

bool KernelLog::about_iommus() const {
  return !dmar.drhds.empty() || !dmar.units.empty() || !amd.features.empty() || amd.ivhd_features ||
         !amd.functions.empty() || !smmu.v3.empty() || !smmu.v2.empty() || !smmu.virtio.empty() ||
         !devices.groups.empty();
}

KernelLog read_kernel_log(std::string_view text) {
  const std::vector<LogLine> lines = log_lines(text);
  std::vector<std::size_t> starts = boot_starts(lines);
  const std::size_t boots = starts.size();
  // What comes before the first boot is the end of another one, or an excerpt without a beginning.
  if (starts.empty() || starts[0] != 0) starts.insert(starts.begin(), 0);
  std::optional<KernelLog> best;
  std::size_t end = lines.size();
  for (std::size_t i = starts.size(); i-- > 0; end = starts[i]) {
    KernelLog log = read_boot(lines, starts[i], end);
    const bool chosen = log.about_iommus();
    if (chosen || (!log.devices.functions.empty() && !best)) best = std::move(log);
    if (chosen) break;
  }
  KernelLog log = best ? std::move(*best) : KernelLog{};
  log.boots = boots;
  return log;
}

}  // namespace ioplan::intake

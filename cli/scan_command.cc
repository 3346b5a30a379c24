#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "backends/intake/archive.h"
#include "backends/intake/hw_info.h"
#include "backends/intake/scan.h"
#include "cli/commands.h"
#include "cli/machine.h"

namespace ioplan::cli {

namespace {

// What a capture holds is what the scan asked for.
Result<intake::Settled> scan_and_capture(const ScanArguments& arguments) {
  auto files = open_machine(arguments.root);
  if (!files) return tl::make_unexpected(files.error());
  intake::Entries entries;
  intake::Findings findings;
  const auto recorder = arguments.capture.empty() ? nullptr : intake::recorder(**files, entries);
  scan(recorder ? *recorder : **files, arguments.names ? intake::HostName::read : intake::HostName::leave_out, findings);
  if (arguments.iommufd) intake::ask_iommufd(*vfio::linux_system(), intake::Findings(findings).settle().host, findings);
  if (arguments.capture.empty()) return std::move(findings).settle();
  const auto archive = write_archive(entries);
  if (!archive) return tl::make_unexpected(archive.error());
  std::ofstream out(arguments.capture, std::ios::binary);
  out << *archive << std::flush;
  if (!out) return failure(fmt::format("cannot write `{}`: {}", arguments.capture, std::strerror(errno)), "name a file that can be written");
  return std::move(findings).settle();
}

}  // namespace

Outcome scan_command(const ScanArguments& arguments) {
  if (arguments.iommufd && arguments.root != "/") {
    return bad_input({"`--iommufd` asks this machine's kernel, and `--root` names another machine", "leave one of them out", {}, 0});
  }
  const auto found = scan_and_capture(arguments);
  if (!found) return bad_input(found.error());
  if (!arguments.capture.empty() && !arguments.output) return {kYes, "", fmt::format("captured in {}\n", arguments.capture)};
  return put_out(*found, arguments.output.value_or(HostOutput{}));
}

}  // namespace ioplan::cli

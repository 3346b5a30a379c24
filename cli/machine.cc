#include "cli/machine.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "backends/intake/archive.h"
#include "backends/intake/findings.h"
#include "backends/intake/scan.h"
#include "engine/document/load.h"

namespace ioplan::cli {

namespace {

namespace fs = std::filesystem;

// Larger than any machine's, and read whole.
constexpr std::uintmax_t kMostArchiveBytes = std::uintmax_t{1} << 30;

Result<intake::Entries> read_capture(const std::string& file) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  if (error) return failure(fmt::format("cannot read the capture: {}", error.message()), {}, {file, 0, 0});
  if (size > kMostArchiveBytes) return failure("the capture is larger than 1GiB", {}, {file, 0, 0});
  std::ifstream in(file, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  if (!in) return failure("cannot read the capture", {}, {file, 0, 0});
  return intake::read_archive(bytes.str(), file);
}

// A document is text; a tar archive's header ends in zeros. A pipe cannot be looked at twice, and is a document's.
bool looks_like_archive(const std::string& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return false;
  std::ifstream in(file, std::ios::binary);
  std::string header(512, '\0');
  in.read(header.data(), static_cast<std::streamsize>(header.size()));
  return in.gcount() == 512 && header.find('\0') != std::string::npos;
}

}  // namespace

Result<std::unique_ptr<intake::MachineFiles>> open_machine(const std::string& root) {
  std::error_code error;
  if (fs::is_directory(root, error)) return intake::open_directory(root);
  auto entries = read_capture(root);
  if (!entries) return tl::make_unexpected(entries.error());
  return intake::files_of(std::move(*entries));
}

Result<Host> read_machine(const std::string& file) {
  if (!looks_like_archive(file)) {
    auto loaded = load({&file, 1});
    if (!loaded) return tl::make_unexpected(loaded.error());
    return std::move(loaded->request.host);
  }
  const auto files = open_machine(file);
  if (!files) return tl::make_unexpected(files.error());
  intake::Findings findings;
  scan(**files, intake::HostName::read, findings);
  return std::move(findings).settle().host;
}

}  // namespace ioplan::cli

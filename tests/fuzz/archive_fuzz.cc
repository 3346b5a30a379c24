// libFuzzer: any bytes, read as a capture, end in an error, or in files from which a scan makes a Host whose document reads
// back, and which can be captured again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "backends/intake/archive.h"
#include "backends/intake/scan.h"
#include "tests/fuzz/host_round_trip.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ioplan;
  const auto entries = intake::read_archive({reinterpret_cast<const char*>(data), size}, "input");
  if (!entries) return 0;
  if (const auto archive = intake::write_archive(*entries)) {
    const auto again = intake::read_archive(*archive, "again");
    if (!again || *again != *entries) std::abort();
  }
  intake::Findings findings;
  intake::scan(*intake::files_of(*entries), intake::HostName::read, findings);
  fuzz::require_round_trip(std::move(findings).settle().host);
  return 0;
}

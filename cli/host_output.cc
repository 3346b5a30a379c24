#include "cli/host_output.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "cli/commands.h"
#include "cli/host_text.h"
#include "engine/document/host_document.h"

namespace ioplan::cli {

namespace {

std::string document_of(const Host& host, Format format) {
  switch (format) {
    case Format::json: return to_json(host);
    case Format::yaml: return to_yaml(host);
    case Format::text: break;
  }
  return host_text(host, Colour::off);
}

std::string diagnostics(const intake::Settled& found) {
  std::string text;
  for (const intake::Contradiction& c : found.contradictions) {
    text += fmt::format("warning: sources disagree about {}\n", c.fact);
    for (const intake::Claim& claim : c.claims) text += fmt::format("  `{}` in {}\n", claim.value, claim.source);
  }
  const std::size_t unknown = found.host.unknown.size();
  if (unknown > 0) text += fmt::format("{} unknown: `ioplan host FILE` lists what, why and what would supply it\n",
                                       unknown == 1 ? "1 fact is" : fmt::format("{} facts are", unknown));
  return text;
}

}  // namespace

Outcome put_out(const intake::Settled& found, const HostOutput& output) {
  std::string document = document_of(found.host, output.format);
  if (output.file.empty()) return {kYes, std::move(document), diagnostics(found)};
  std::ofstream out(output.file, std::ios::binary);
  out << document << std::flush;
  if (!out) return bad_input({fmt::format("cannot write `{}`: {}", output.file, std::strerror(errno)), "name a file that can be written", {}, 0});
  return {kYes, "", diagnostics(found)};
}

}  // namespace ioplan::cli

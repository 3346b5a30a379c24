#include <array>
#include <iostream>
#include <sstream>
#include <utility>

#include "backends/intake/import.h"
#include "cli/commands.h"
#include "engine/document/load.h"

namespace ioplan::cli {

namespace {

// `-` is standard input.
Result<std::string> read_text(const std::string& file) {
  if (file != "-") return read_text_file(file);
  std::ostringstream all;
  all << std::cin.rdbuf();
  return std::move(all).str();
}

Result<intake::Imported> read_and_import(const ImportArguments& arguments) {
  using intake::TextKind;
  const std::array<std::pair<TextKind, const std::vector<std::string>*>, 5> given = {{
      {TextKind::dmesg, &arguments.dmesg},
      {TextKind::lspci, &arguments.lspci},
      {TextKind::groups, &arguments.groups},
      {TextKind::reserved, &arguments.reserved},
      {TextKind::libvirt_nodedev, &arguments.libvirt_nodedev},
  }};
  std::vector<intake::ImportText> texts;
  for (const auto& [kind, files] : given) {
    for (const std::string& file : *files) {
      auto text = read_text(file);
      if (!text) return tl::make_unexpected(text.error());
      texts.push_back({kind, file == "-" ? "stdin" : file, std::move(*text)});
    }
  }
  return intake::import_host(texts);
}

}  // namespace

Outcome import_command(const ImportArguments& arguments) {
  const auto imported = read_and_import(arguments);
  if (!imported) return bad_input(imported.error());
  Outcome outcome = put_out(imported->settled, arguments.output);
  std::string notes;
  for (const std::string& note : imported->notes) notes += "note: " + note + "\n";
  outcome.err = notes + outcome.err;
  return outcome;
}

}  // namespace ioplan::cli

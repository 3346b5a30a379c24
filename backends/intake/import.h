// A Host from what people paste into bug reports: boot logs, lspci, group listings, reserved regions, libvirt's node
// devices, several of each.
//
// Every fact has the place that states it. Nothing is guessed: what no text says is either concluded from the others by a
// rule that always holds (placement.h, or the kernel's command line), or listed as unknown with what would supply it.
// Texts that disagree are reported with both places. The order in which texts are given changes nothing.
// Held by tests/import_test.cc and tests/import_corpus_test.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backends/intake/findings.h"
#include "engine/base/error.h"

namespace ioplan::intake {

enum class TextKind : std::uint8_t { dmesg, lspci, groups, reserved, libvirt_nodedev };

struct ImportText {
  TextKind kind = TextKind::dmesg;
  std::string file;  // as places name it
  std::string text;
};

struct Imported {
  Settled settled;
  std::vector<std::string> notes;  // what people should know about the texts, a sentence each, with places
};

// Errors: a text in which its importer finds nothing, XML that does not parse, no text at all.
Result<Imported> import_host(std::span<const ImportText> texts);

}  // namespace ioplan::intake

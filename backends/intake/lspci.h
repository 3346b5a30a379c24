// `lspci` in every form that people paste: plain, -nn, -nnk, -v to -vvv, -vmm (with -nn and -k too), -t; with and without -D.
//
// A listing is records of one function each. What a form does not print is absent: without -v the programming interface
// is only printed when a name or number goes with it, so the class has 16 known bits; names only without -n.
// Source: pciutils' lspci.c, ls-caps.c, ls-ecaps.c, ls-tree.c (read for the format). Held by tests/importers_test.cc and, on
// published capabilities, by tests/import_corpus_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/intake/cursor.h"
#include "backends/intake/noted.h"

namespace ioplan::intake {

struct LspciBar {
  unsigned index = 0;
  std::uint64_t size = 0;
  std::uint32_t line = 0;
};

struct LspciFunction {
  std::string device;  // PCI address
  std::uint32_t line = 0;
  std::string class_name, name;  // name: vendor and device as printed
  std::optional<Noted<std::uint64_t>> class_code;  // 16 bits
  std::optional<Noted<std::uint64_t>> interface;   // 8 bits
  std::optional<PciIds> ids;
  std::optional<Noted<std::uint64_t>> numa, group;
  std::optional<Noted<std::uint64_t>> pasid_bits;
  std::string driver;
  std::vector<LspciBar> bars;  // memory only
  bool verbose = false;  // printed with -v: programming interfaces are left out only when they are 0
  std::string express_type;    // "Endpoint", "Root Port (Slot+)"; empty: no PCI Express capability
  std::optional<bool> no_snoop, relaxed_ordering, flr;
  bool ats = false, pri = false, pasid = false;  // capabilities; meaningful with no_snoop, which needs the same rights
  std::string acs_capabilities, acs_control;
  struct Sriov {
    std::uint64_t initial = 0, total = 0, enabled = 0, offset = 0, stride = 0, device = 0;
  };
  std::optional<Sriov> sriov;
  std::optional<Noted<std::uint64_t>> secondary, subordinate;  // of a bridge
};

// From the tree form: which function is on which bus.
struct LspciTree {
  struct Bridge {
    std::string device;
    std::uint64_t secondary = 0, subordinate = 0;
    std::uint32_t line = 0;
  };
  std::vector<Noted<std::string>> devices;
  std::vector<Bridge> bridges;
};

struct LspciListing {
  std::vector<LspciFunction> functions;
  LspciTree tree;
};

LspciListing read_lspci(std::string_view text);

// "PCI bridge [0604]: Intel Corporation ... [8086:1901] (rev 07)": what follows a function's address in the plain forms, and in
// the group listings made from them. False when it is no description.
bool read_description(std::string_view text, std::uint32_t line, LspciFunction& out);

}  // namespace ioplan::intake

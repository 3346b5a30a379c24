// What an import knows while it goes through the texts: the facts so far, what conclusions need of them, and what people
// should be told. Facts of one device or unit that several formats have are stated here, in one way.
#pragma once

#include <cstdint>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/intake/findings.h"
#include "backends/intake/pasted.h"

namespace ioplan::intake {

class Ledger {
 public:
  // What the texts together say of one device, as far as conclusions need it.
  struct Seen {
    std::optional<std::uint64_t> group;
    std::optional<std::uint64_t> whole_class;  // 24 bits
    bool named = false;
  };

  // A sentence for people.
  template <class... Arguments>
  void note(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    notes.push_back(fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  // A fact that a text has a line for, if it has.
  template <class T, class Fact>
  void state(const Pasted<T>& text, FactName name, const std::optional<Noted<Fact>>& fact, Standing standing = Standing::observed) {
    if (!fact) return;
    using Stored = std::conditional_t<std::is_same_v<Fact, bool>, std::uint64_t, Fact>;
    findings.state(std::move(name), Stored{fact->value}, text.at(fact->line), standing);
  }

  void state_exists(const std::string& device, const std::string& source);
  void state_group(const std::string& device, std::uint64_t group, const std::string& source);
  void state_ids(const std::string& device, const PciIds& ids, const std::string& source);
  // Editions of the PCI id list differ, and so do people's scripts: the first name stands.
  void state_name(const std::string& device, const std::string& name, const std::string& source);
  // A class without its programming interface agrees with any whole one that begins with it (`whole_class`); where there
  // is none, the interface is taken to be 0, which every class has.
  void state_class(const LspciFunction& function, const std::string& source);
  // By index: the last size of each stands.
  void state_bars(const std::string& device, const std::map<unsigned, std::uint64_t>& bars, const std::string& source);

  void state_unit(const std::string& id, Driver driver, const std::string& source);
  // A register, or that its line does not show it whole.
  void state_register(const std::string& id, UnitFact fact, std::optional<std::uint64_t> value, const std::string& source);

  Findings findings;
  std::map<std::string, Seen> seen;
  std::set<std::string> partial_classes;  // devices whose programming interface is not known
  std::vector<std::string> units;         // ids in the order of the texts
  std::vector<std::string> notes;
};

}  // namespace ioplan::intake

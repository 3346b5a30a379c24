// What sources say about a host, before it is a Host: facts with where they were read, what could not be read, and what
// two sources say differently. `scan` and `import` fill one store; settle() makes a Host of it.
//
// A fact is named as `assumptions[]` and `unknown[]` of a Plan name it: "kernel.release", "iommus.dmar0.cap",
// "devices.0000:01:00.0.group"; keys and values are those of Host documents (engine/document/README.md).
//
// The order in which things are stated changes nothing. The same value from several sources keeps the source that sorts
// first ("dmesg.txt:9" before "dmesg.txt:812"). Different values contradict each other: both are reported, and the fact
// stays unknown, unless one source knows better by its nature (Standing). Whatever a Host document could not hold (a
// register that is too wide, a name with a line break) is unknown too, so every settled Host can be written and read.
// Held by tests/findings_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/model/host.h"

namespace ioplan::intake {

enum class About : std::uint8_t { host, kernel, unit, device };

struct FactName {
  About about = About::host;
  std::string id;   // of the unit or device
  std::string key;  // empty: that it exists

  friend auto operator<=>(const FactName&, const FactName&) = default;
};

FactName host_name();
FactName kernel(KernelFact fact);
FactName kernel(std::string key);  // arch, release, cpu_vendor, command_line, hugepages
FactName unit(std::string id, UnitFact fact);
FactName unit(std::string id, std::string key);  // driver, address, version
FactName device(std::string id, DeviceFact fact);
FactName device(std::string id, std::string key);  // iommu, group, name, reserved, bars, driver, ...

// "iommus.dmar0.cap".
std::string path_of(const FactName& name);

// A fact's value: booleans and integers, words (an id, a driver, an architecture), or a list. Nothing: it exists.
using Value = std::variant<std::monostate, std::uint64_t, std::string, std::vector<ReservedRegion>, std::vector<Bar>,
                           std::vector<HugePages>>;

// How well a source knows, best first. The better one is believed without a word.
enum class Standing : std::uint8_t {
  observed,   // the running kernel or the hardware says so: sysfs, GET_HW_INFO, a boot log, lspci
  concluded,  // follows from other facts: the unit that a log's order implies, what a command line asks for
  described,  // words for people that differ between editions: names of the PCI id list
};

struct Claim {
  std::string value;  // as a document would have it
  std::string source;

  friend auto operator<=>(const Claim&, const Claim&) = default;
};

// Two or more values for one fact, from sources of the same standing.
struct Contradiction {
  std::string fact;
  std::vector<Claim> claims;  // sorted; one for each value, with its first source

  friend auto operator<=>(const Contradiction&, const Contradiction&) = default;
};

struct Settled {
  Host host;                                  // sorted, with its sources and what is unknown
  std::vector<Contradiction> contradictions;  // sorted; their facts are among host.unknown
};

class Findings {
 public:
  // `source`: a place that a reader can go to: "/sys/class/iommu/dmar0/intel-iommu/cap", "dmesg.txt:812".
  void state(FactName name, Value value, std::string source, Standing standing = Standing::observed);

  // The fact could not be learned. `supply`: what would help, as an instruction: "run as root", "give `--lspci`".
  // Says nothing when some source states the fact after all.
  void miss(FactName name, std::string why, std::string supply);

  Settled settle() &&;

 private:
  struct Statement {
    FactName name;
    Standing standing;
    Value value;
    std::string source;
  };
  struct Miss {
    FactName name;
    std::string why, supply;
  };
  class Settlement;

  std::vector<Statement> statements_;
  std::vector<Miss> misses_;
};

}  // namespace ioplan::intake

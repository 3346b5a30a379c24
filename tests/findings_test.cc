// backends/intake/findings: the order of statements changes nothing, sources that disagree leave a fact unknown, and
// whatever is settled is a Host that documents can hold.
#include "backends/intake/findings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "engine/document/host_document.h"
#include "engine/document/load.h"

namespace ioplan::intake {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

using Statement = std::function<void(Findings&)>;

Settled settled(const std::vector<Statement>& statements) {
  Findings findings;
  for (const Statement& s : statements) s(findings);
  return std::move(findings).settle();
}

Statement says(FactName name, Value value, std::string source, Standing standing = Standing::observed) {
  return [=](Findings& f) { f.state(name, value, source, standing); };
}

const Statement kUnit = says(unit("dmar0", "driver"), "intel", "dmesg.txt:7");

Host read_back(const std::string& text) {
  auto loaded = load_text("host", text);
  EXPECT_TRUE(loaded) << to_text(loaded.error()) << "\n" << text;
  return loaded ? loaded->request.host : Host{};
}

TEST(Findings, PathsAreThoseOfPlans) {
  EXPECT_EQ(path_of(kernel("release")), "kernel.release");
  EXPECT_EQ(path_of(unit("dmar0", UnitFact::cap)), "iommus.dmar0.cap");
  EXPECT_EQ(path_of(device("01:00.0", "group")), "devices.0000:01:00.0.group");
}

TEST(Findings, EqualValuesKeepTheFirstSource) {
  const Settled found = settled({kUnit, says(unit("dmar0", UnitFact::cap), std::uint64_t{1}, "dmesg.txt:812"),
                                 says(unit("dmar0", UnitFact::cap), std::uint64_t{1}, "dmesg.txt:9")});
  EXPECT_THAT(found.contradictions, IsEmpty());
  EXPECT_THAT(found.host.sources, ElementsAre(Pair("iommus.dmar0.cap", "dmesg.txt:9"), Pair("iommus.dmar0.driver", "dmesg.txt:7")));
}

TEST(Findings, ContradictionsAreReportedAndLeaveTheFactUnknown) {
  const Settled found = settled({kUnit, says(unit("dmar0", UnitFact::cap), std::uint64_t{0x10}, "a:1"),
                                 says(unit("dmar0", UnitFact::cap), std::uint64_t{0x20}, "b:2"),
                                 says(unit("dmar0", UnitFact::cap), std::uint64_t{0x10}, "c:3")});
  EXPECT_THAT(found.contradictions,
              ElementsAre(Contradiction{"iommus.dmar0.cap", {{"0x10", "a:1"}, {"0x20", "b:2"}}}));
  EXPECT_FALSE(found.host.units.at(0).facts[UnitFact::cap]);
  EXPECT_THAT(found.host.unknown, ElementsAre(Gap{"iommus.dmar0.cap", "sources disagree: `0x10` in a:1, `0x20` in b:2",
                                                  "leave out the source that is wrong", {}}));
}

TEST(Findings, WhatWasObservedGoesBeforeWhatWasConcluded) {
  const Settled found = settled({says(kernel(KernelFact::isolated_msi), std::uint64_t{0}, "a", Standing::concluded),
                                 says(kernel(KernelFact::isolated_msi), std::uint64_t{1}, "z", Standing::observed)});
  EXPECT_THAT(found.contradictions, IsEmpty());
  EXPECT_EQ(found.host.kernel.facts[KernelFact::isolated_msi], 1U);
}

TEST(Findings, AContradictedDeviceStillExists) {
  const Settled found = settled({says(device("0000:01:00.0", "group"), std::uint64_t{1}, "a"),
                                 says(device("0000:01:00.0", "group"), std::uint64_t{2}, "b")});
  ASSERT_EQ(found.host.devices.size(), 1U);
  EXPECT_FALSE(found.host.devices[0].group);
}

TEST(Findings, MissesAreForgottenOnceSomebodyKnows) {
  const auto miss = [](Findings& f) { f.miss(kernel("release"), "no such file", "run as root"); };
  EXPECT_THAT(settled({miss}).host.unknown, ElementsAre(Gap{"kernel.release", "no such file", "run as root", {}}));
  EXPECT_THAT(settled({miss, says(kernel("release"), "7.2.13", "uname")}).host.unknown, IsEmpty());
}

TEST(Findings, OneGapForAllThatLackAFactForOneReason) {
  std::vector<Statement> statements;
  for (const char* id : {"0000:01:00.0", "0000:02:00.0", "0000:03:00.0"}) {
    statements.push_back(says(device(id, ""), std::monostate{}, "list"));
    if (id[6] == '3') continue;
    statements.push_back([id](Findings& f) { f.miss(device(id, "group"), std::string("no link in ") + id, "x"); });
  }
  EXPECT_THAT(settled(statements).host.unknown,
              ElementsAre(Gap{"devices.group", "no link in *", "x", {"0000:01:00.0", "0000:02:00.0"}}));
}

TEST(Findings, SourcesOfOneFormAreOneLine) {
  const Settled found = settled({says(device("0000:01:00.0", "group"), std::uint64_t{1}, "/sys/0000:01:00.0/group"),
                                 says(device("0000:02:00.0", "group"), std::uint64_t{2}, "/sys/0000:02:00.0/group"),
                                 says(device("0000:03:00.0", "group"), std::uint64_t{3}, "groups.txt:3")});
  EXPECT_THAT(found.host.sources, UnorderedElementsAre(Pair("devices.*.group", "/sys/*/group"),
                                                       Pair("devices.0000:03:00.0.group", "groups.txt:3")));
}

struct Unfit {
  FactName name;
  Value value;
  const char* why;
};

TEST(Findings, WhatADocumentCannotHoldIsUnknown) {
  const std::string id = "0000:01:00.0";
  const Unfit cases[] = {
      {device(id, DeviceFact::vendor), std::uint64_t{0x10000}, "s says `0x10000`: 0x10000 does not fit in 16 bits"},
      {device(id, "name"), "a\nb", "s says `a\\x0ab`: it is not one line of UTF-8 text"},
      {device(id, "name"), "\xff", "s says `\\xff`: it is not one line of UTF-8 text"},
      {device(id, "name"), "", "s says ``: it is empty"},
      {device(id, "name"), std::uint64_t{1}, "s says `1`: it is of another kind"},
      {device(id, "group"), std::uint64_t{1} << 32, "s says `0x100000000`: 0x100000000 does not fit in 32 bits"},
      {device(id, "iommu"), "dmar9", "s says `dmar9`: nothing else is known of that unit"},
      {device(id, "colour"), std::uint64_t{1}, "s says `1`: documents have no such key"},
      {device(id, "bars"), std::vector<Bar>{{0, 3}}, "s says `0: 3B`: BAR 0 has 3 bytes"},
      {device(id, "bars"), std::vector<Bar>{{6, 4}}, "s says `6: 4B`: there is no BAR 6"},
      {device(id, "reserved"), std::vector<ReservedRegion>{{{5, 2}, ReservedType::msi}}, "s says `0x5-0x2 msi`: 0x5-0x2 msi ends before it starts"},
      {device(id, "reserved"), std::vector<ReservedRegion>{{{0, 9}, ReservedType::msi}, {{5, 12}, ReservedType::msi}},
       "s says `0x0-0x9 msi, 0x5-0xc msi`: 0x5-0xc msi overlaps 0x0-0x9 msi"},
  };
  for (const Unfit& c : cases) {
    const Settled found = settled({says(c.name, c.value, "s")});
    EXPECT_THAT(found.host.unknown, ElementsAre(Gap{path_of(c.name), c.why, "", {}}));
    Device bare;
    bare.id = id;
    EXPECT_EQ(found.host.devices.at(0), bare);
    read_back(to_yaml(found.host));
  }
}

TEST(Findings, IdsThatNoDocumentCanNameAreLeftOut) {
  const Settled found = settled({says(device("0000:01\n:00.0", "group"), std::uint64_t{1}, "s"), says(unit("", "driver"), "intel", "s")});
  EXPECT_THAT(found.host.devices, IsEmpty());
  EXPECT_THAT(found.host.units, IsEmpty());
  EXPECT_THAT(found.host.unknown, UnorderedElementsAre(
      Gap{"devices", "there is one with the id `0000:01\\x0a:00.0`, which no document can hold", "", {}},
      Gap{"iommus", "there is one with the id ``, which no document can hold", "", {}}));
}

TEST(Findings, AUnitWithoutADriverIsNone) {
  const Settled found = settled({says(unit("dmar0", UnitFact::cap), std::uint64_t{1}, "s"), says(unit("x0", "driver"), "vax", "s")});
  EXPECT_THAT(found.host.units, IsEmpty());
  EXPECT_THAT(found.host.unknown,
              UnorderedElementsAre(Gap{"iommus.dmar0.driver", "nothing says which driver it has", "", {}},
                                   Gap{"iommus.x0.driver", "s says `vax`: documents have no such word", "", {}}));
}

// Random statements, some of them contradictory or unfit: every order of stating gives the same Host, which documents hold.
TEST(Findings, TheOrderOfStatementsChangesNothing) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 dice(seed);
    const auto pick = [&](std::uint64_t n) { return dice() % n; };
    std::vector<Statement> statements;
    for (unsigned i = 0; i < 40; ++i) {
      const std::string unit_id = "dmar" + std::to_string(pick(3)), id = "0000:0" + std::to_string(pick(4)) + ":00.0";
      const std::string source = "log:" + std::to_string(pick(30));
      const auto standing = static_cast<Standing>(pick(3));
      switch (pick(8)) {
        case 0: statements.push_back(says(unit(unit_id, "driver"), pick(9) == 0 ? "amd" : "intel", source, standing)); break;
        case 1: statements.push_back(says(unit(unit_id, UnitFact::cap), pick(2), source, standing)); break;
        case 2: statements.push_back(says(device(id, "group"), pick(2), source, standing)); break;
        case 3: statements.push_back(says(device(id, "iommu"), unit_id, source, standing)); break;
        case 4: statements.push_back(says(device(id, "name"), pick(3) == 0 ? "bad\nname" : "name", source, standing)); break;
        case 5: statements.push_back(says(device(id, DeviceFact::vendor), pick(3) * 0x8000, source, standing)); break;
        case 6: statements.push_back(says(kernel("release"), pick(2) == 0 ? "6.1" : "7.2", source, standing)); break;
        case 7: statements.push_back([=](Findings& f) { f.miss(device(id, "group"), "why " + source, "supply"); }); break;
      }
    }
    const Settled found = settled(statements);
    std::ranges::shuffle(statements, dice);
    const Settled other = settled(statements);
    ASSERT_EQ(found.host, other.host) << "seed " << seed;
    ASSERT_EQ(found.contradictions, other.contradictions) << "seed " << seed;
    ASSERT_EQ(read_back(to_yaml(found.host)), found.host) << "seed " << seed;
    ASSERT_EQ(read_back(to_json(found.host)), found.host) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ioplan::intake

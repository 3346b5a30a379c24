// constraints/drivers/fields: the fields that differ between the units of a machine are those that the corpus states,
// with the same values; no two fields of a register share a bit.
#include "constraints/drivers/fields.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/support/corpus.h"

namespace ioplan::drivers {
namespace {

TEST(Fields, NoTwoShareABit) {
  for (std::size_t d = 0; d < kDriverNames.size(); ++d) {
    std::map<UnitFact, std::uint64_t> taken;
    for (const Field& field : fields_of(static_cast<Driver>(d))) {
      const std::uint64_t mask = value_of({"", field.word, 0, field.bits, ""}, ~std::uint64_t{0}) << field.low;
      ASSERT_LE(field.low + field.bits, 64U) << field.name;
      EXPECT_EQ(taken[field.word] & mask, 0U) << field.name;
      taken[field.word] |= mask;
    }
  }
}

std::map<std::string, std::vector<std::uint64_t>> differing(const std::vector<corpus::VtdUnit>& units) {
  std::map<std::string, std::vector<std::uint64_t>> found;
  for (const Field& field : fields_of(Driver::intel)) {
    std::vector<std::uint64_t> values;
    bool differs = false;
    for (const corpus::VtdUnit& unit : units) {
      values.push_back(value_of(field, field.word == UnitFact::cap ? unit.cap : unit.ecap));
      differs = differs || values.back() != values.front();
    }
    if (differs) found[std::string(field.name)] = values;
  }
  return found;
}

TEST(Fields, DifferAsTheCorpusSays) {
  const auto root = corpus::root();
  if (!root) GTEST_SKIP() << "no corpus beside the project";
  unsigned machines = 0;
  for (const corpus::Machine& machine : corpus::read(*root)) {
    if (machine.vtd.size() < 2 || machine.segment.empty()) continue;
    std::map<std::string, std::vector<std::uint64_t>> stated;
    for (const corpus::Difference& d : machine.differences) stated[d.field] = d.values;
    EXPECT_EQ(differing(machine.vtd), stated) << machine.id;
    ++machines;
  }
  EXPECT_GE(machines, 50U);
}

}  // namespace
}  // namespace ioplan::drivers

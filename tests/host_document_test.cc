// Hosts survive their own documents: random ones of every driver, and every real machine of the corpus.
#include "engine/document/host_document.h"

#include <gtest/gtest.h>

#include "engine/document/load.h"
#include "tests/support/corpus.h"
#include "tests/support/generator.h"

namespace ioplan {
namespace {

// Equal through YAML and JSON, and the same bytes the second time.
void expect_survives(const Host& host) {
  for (const std::string& text : {to_yaml(host), to_json(host)}) {
    const auto read = load_text("host", text);
    ASSERT_TRUE(read) << to_text(read.error()) << "\n" << text;
    EXPECT_EQ(read->request.host, host) << text;
    EXPECT_EQ(fingerprint(read->request.host), fingerprint(host));
    EXPECT_EQ(text.starts_with('{') ? to_json(read->request.host) : to_yaml(read->request.host), text);
  }
}

TEST(HostDocument, RandomHostsSurvive) {
  for (std::uint64_t seed = 0; seed < 1500; ++seed) {
    SCOPED_TRACE(seed);
    const auto loaded = load_text("request", generator::to_documents(generator::random_request(seed)));
    ASSERT_TRUE(loaded) << to_text(loaded.error());
    expect_survives(loaded->request.host);
    if (HasFailure()) return;
  }
}

TEST(HostDocument, TheCorpusSurvives) {
  const auto root = corpus::root();
  if (!root) GTEST_SKIP() << "no corpus beside the project";
  for (const corpus::Machine& machine : corpus::read(*root)) {
    SCOPED_TRACE(machine.id);
    const auto loaded = load_text(machine.id, machine.host);
    ASSERT_TRUE(loaded) << to_text(loaded.error());
    expect_survives(loaded->request.host);
  }
}

// Every key that documents have for a host, and text that YAML would take for something else.
Host full_host() {
  Host host;
  host.name = "yes";
  host.kernel.arch = Arch::x86_64;
  host.kernel.release = "7.2";
  host.kernel.cpu_vendor = "GenuineIntel";
  host.kernel.command_line = "intel_iommu=on,sm_on # no comment: \"quoted\"";
  host.kernel.hugepages = {{1U << 21, 4, 2}, {1U << 30, 1, 0}};
  host.kernel.facts[KernelFact::memory_kib] = 1024;
  host.kernel.facts[KernelFact::phys_bits] = 52;
  host.units = {Unit{.id = "0x10", .driver = Driver::smmuv3, .facts = {}, .address = 0x2b400000, .version = "1:0"}};
  host.units[0].facts[UnitFact::idr1] = 5;  // without idr0
  host.units[0].facts[UnitFact::httu] = 2;
  Device d;
  d.id = "null";
  d.unit = UnitIndex(0);
  d.group = 7;
  d.name = "12";
  d.labels = {"- a", "{b}"};
  d.facts[DeviceFact::device_class] = 0x1;
  d.facts[DeviceFact::dma_coherent] = 1;
  d.dma_coherent_source = CoherencySource::firmware;
  d.facts[DeviceFact::acs_enabled] = 0x1d;
  d.reserved.emplace();
  d.bars = {{5, 4096}};
  d.bound_driver = "vfio-pci";
  d.physical_function = "0000:01:00.0";
  d.group_type = "DMA-FQ";
  host.devices = {d};
  host.sources = {{"devices.*.group", "/sys/*/x"}, {"kernel.release", "dmesg: 12"}};
  host.unknown = {{"devices.numa", "why: not", "", {"null"}}, {"kernel.va_bits", "because", "run as root", {}}};
  return host;
}

TEST(HostDocument, EveryKeySurvives) { expect_survives(full_host()); }

TEST(HostDocument, IsWrittenLikeThis) {
  EXPECT_EQ(to_yaml(full_host()), R"(apiVersion: ioplan/v1
kind: Host
name: "yes"
kernel:
  arch: x86_64
  release: "7.2"
  phys_bits: 52
  memory_kib: 1024
  cpu_vendor: GenuineIntel
  command_line: "intel_iommu=on,sm_on # no comment: \"quoted\""
  hugepages:
    - {size: "2MiB", total: 4, free: 2}
    - {size: "1GiB", total: 1, free: 0}
iommus:
  - {id: 0x10, driver: smmuv3, httu: 2, idr: [null, 0x5], address: 0x2b400000, version: "1:0"}
devices:
  - id: "null"
    name: "12"
    iommu: 0x10
    group: 7
    group_type: DMA-FQ
    class: 0x000001
    acs_enabled: 0x001d
    dma_coherent: {value: true, source: firmware}
    driver: vfio-pci
    physical_function: "0000:01:00.0"
    label: ["- a", "{b}"]
    reserved: []
    bars:
      - {index: 5, size: "4KiB"}
unknown:
  - {fact: devices.numa, why: "why: not", subjects: ["null"]}
  - {fact: kernel.va_bits, why: because, supply: "run as root"}
sources: {"devices.*.group": "/sys/*/x", kernel.release: "dmesg: 12"}
)");
}

// Sources, gaps and what changes no plan are no part of the fingerprint.
TEST(HostDocument, TheFingerprintIsOfWhatPlansDependOn) {
  Host host = full_host();
  const std::string before = fingerprint(host);
  host.sources.clear();
  host.unknown.clear();
  host.kernel.facts[KernelFact::memory_kib] = 7;
  host.kernel.hugepages.clear();
  host.devices[0].bound_driver = "nvme";
  host.devices[0].facts[DeviceFact::ats] = 1;
  EXPECT_EQ(fingerprint(host), before);
  host.devices[0].facts[DeviceFact::pasid_bits] = 1;
  EXPECT_NE(fingerprint(host), before);
}

struct Bad {
  const char* text;
  const char* message;
};

TEST(HostDocument, ShapesAreHeld) {
  const Bad cases[] = {
      {"sources: [a]", "host:3:10: error: `sources` must be a map of facts to places"},
      {"sources: {a: b, a: c}", "host:3:17: error: two sources of `a`"},
      {"unknown: [{why: x}]", "host:3:11: error: `unknown` has no `fact`"},
      {"kernel: {hugepages: [{size: 3MiB, total: 1, free: 1}]}", "host:3:29: error: "},
      {"kernel: {hugepages: [{size: 2MiB, total: 1, free: 1}, {size: 2MiB, total: 1, free: 1}]}", "host:3:62: error: two pools of huge pages of `2MiB`"},
  };
  for (const Bad& c : cases) {
    const auto loaded = load_text("host", std::string("apiVersion: ioplan/v1\nkind: Host\n") + c.text + "\n");
    ASSERT_FALSE(loaded) << c.text;
    EXPECT_TRUE(to_text(loaded.error()).starts_with(c.message)) << to_text(loaded.error());
  }
}

}  // namespace
}  // namespace ioplan

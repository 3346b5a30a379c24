// engine/document: every class of bad input with the exact text that the user sees; documents that mean the same read
// the same; plans survive their own documents; no bytes whatever make the reader crash or throw.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "engine/document/load.h"
#include "engine/document/plan_document.h"

namespace ioplan {
namespace {

// ---------------------------------------------------------------- texts

const std::string kHost = R"(apiVersion: ioplan/v1
kind: Host
name: three-drhd
kernel: {arch: x86_64, release: 7.2.13, page_size: 4KiB, intel_iommu_sm: true, isolated_msi: true}
iommus:
  - {id: dmar0, driver: intel, cap: 0xd2008c40660462, ecap: 0xf050da}
  - {id: ivhd0, driver: amd, efr: 0x246577efa2254afa, efr2: 0x0}
  - {id: smmu3.0, driver: smmuv3, idr: [0x0d8ff1ff, 0x0e739d10, 0, 0x1900, 0, 0x75], coherent: true}
  - {id: viommu0, driver: virtio, page_mask: 0xfffffffffffff000, input_range: [0x0, 0xffffffffffffffff]}
devices:
  - id: "0000:01:00.0"
    iommu: dmar0
    group: 12
    class: 0x030000
    vendor: 0x10de
    device: 0x2330
    name: H100
    numa: 0
    dma_coherent: {value: true, source: architecture}
    canwbs: false
    pasid_bits: 20
    reserved:
      - {range: [0xfee00000, 0xfeefffff], type: msi}
    bars: [{index: 0, size: 16MiB}]
  - {id: "0000:01:00.1", iommu: dmar0, group: 12, class: 0x040300}
  - {id: "0000:81:00.0", iommu: ivhd0, group: 13, class: 0x020000, label: [fast, green]}
)";

const std::string kVm = R"(---
apiVersion: ioplan/v1
kind: VirtualMachine
name: train-01
memory: {size: 512GiB, backing: 1GiB}
machine: {type: q35, cpu_vendor: intel}
devices: [{host: "0000:01:00.0", name: gpu0}, {host: "0000:01:00.1", name: audio0}]
viommu: {model: none}
needs: {dirty_tracking: required, p2p: [[gpu0, audio0]]}
hotplug: {expect: [{host: "0000:81:00.0"}, {class: network}], memory: 256GiB}
)";

const std::string kPolicy = R"(---
apiVersion: ioplan/v1
kind: Policy
name: default
coherency: strict
assumed_coherency: allow
assumptions: allow
viommu_fallback: [nested, hybrid, shadow]
objectives: [hwpts, ioas]
hotplug: additive
rules:
  - {name: tenants, separate: {a: {class: network}, b: {class: [display, 0x0403]}}}
  - {name: pair, together: {name: [gpu0, audio0]}}
  - {name: big-pages, require: {page_size: 1GiB}, for: {host: "0000:01:00.0"}}
  - {name: few, limit: {hwpts: 2}}
)";

// `text` with the first `from` replaced; a test whose `from` is not there is wrong.
std::string with(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

std::string error_of(const std::string& text) {
  const auto loaded = load_text("t", text);
  return loaded ? "no error" : to_text(loaded.error());
}

std::string host_error(const std::string& from, const std::string& to) { return error_of(with(kHost, from, to)); }
std::string vm_error(const std::string& from, const std::string& to) { return error_of(kHost + with(kVm, from, to)); }
std::string policy_error(const std::string& from, const std::string& to) {
  return error_of(kHost + kVm + with(kPolicy, from, to));
}

Request request_of(const std::string& text) {
  auto loaded = load_text("t", text);
  EXPECT_TRUE(loaded) << (loaded ? "" : to_text(loaded.error()));
  return loaded ? std::move(loaded->request) : Request{};
}

// ---------------------------------------------------------------- good documents

TEST(Load, ReadsAHost) {
  const Host host = request_of(kHost).host;
  EXPECT_EQ(host.name, "three-drhd");
  EXPECT_EQ(host.kernel.arch, Arch::x86_64);
  EXPECT_EQ(host.kernel.release, "7.2.13");
  EXPECT_EQ(host.kernel.facts[KernelFact::page_size], 4096U);
  EXPECT_EQ(host.kernel.facts[KernelFact::intel_iommu_sm], 1U);
  EXPECT_FALSE(host.kernel.facts[KernelFact::la57]);
  ASSERT_EQ(host.units.size(), 4U);
  EXPECT_EQ(host.units[0].facts[UnitFact::cap], 0xd2008c40660462U);
  EXPECT_EQ(host.units[2].facts[UnitFact::idr0], 0x0d8ff1ffU);
  EXPECT_EQ(host.units[2].facts[UnitFact::idr3], 0x1900U);
  EXPECT_EQ(host.units[2].facts[UnitFact::idr5], 0x75U);
  EXPECT_EQ(host.units[3].facts[UnitFact::input_last], ~std::uint64_t{0});
  ASSERT_EQ(host.devices.size(), 3U);
  const Device& gpu = host.devices[0];
  EXPECT_EQ(gpu.id, "0000:01:00.0");
  EXPECT_EQ(host.unit(*gpu.unit).id, "dmar0");
  EXPECT_EQ(gpu.group, 12U);
  EXPECT_EQ(gpu.facts[DeviceFact::device_class], 0x030000U);
  EXPECT_EQ(gpu.facts[DeviceFact::dma_coherent], 1U);
  EXPECT_EQ(gpu.dma_coherent_source, CoherencySource::architecture);
  EXPECT_EQ(gpu.facts[DeviceFact::canwbs], 0U);
  EXPECT_EQ(gpu.reserved, (std::vector<ReservedRegion>{{{0xfee00000, 0xfeefffff}, ReservedType::msi}}));
  ASSERT_EQ(gpu.bars.size(), 1U);
  EXPECT_EQ(gpu.bars[0].size, 16U << 20);
  EXPECT_FALSE(host.devices[1].reserved);
  EXPECT_EQ(host.devices[2].labels, (std::vector<std::string>{"fast", "green"}));
}

TEST(Load, ReadsAVm) {
  const Request request = request_of(kHost + kVm);
  ASSERT_EQ(request.vms.size(), 1U);
  const VirtualMachine& vm = request.vms[0];
  EXPECT_EQ(vm.name, "train-01");
  EXPECT_EQ(vm.memory.size, std::uint64_t{512} << 30);
  EXPECT_EQ(vm.memory.backing, std::uint64_t{1} << 30);
  EXPECT_EQ(vm.machine.type, MachineType::q35);
  EXPECT_EQ(vm.machine.cpu_vendor, CpuVendor::intel);
  ASSERT_EQ(vm.devices.size(), 2U);
  EXPECT_EQ(vm.devices[0].host, DeviceIndex(0));
  EXPECT_EQ(vm.devices[0].name, "gpu0");
  EXPECT_EQ(vm.needs.dirty_tracking, Need::required);
  EXPECT_EQ(vm.needs.pasid, Need::no);
  using Pair = std::pair<std::string, std::string>;
  EXPECT_EQ(vm.needs.p2p, (std::vector<Pair>{{"0000:01:00.0", "0000:01:00.1"}}));
  EXPECT_EQ(vm.hotplug.hosts, (std::vector<std::string>{"0000:81:00.0"}));
  EXPECT_EQ(vm.hotplug.classes, (std::vector<std::string>{"0x02"}));
  EXPECT_EQ(vm.hotplug.memory, std::uint64_t{256} << 30);
}

TEST(Load, ReadsMemoryRangesMdevsAndTheRest) {
  const Request request = request_of(kHost + R"(---
apiVersion: ioplan/v1
kind: VirtualMachine
name: small
memory: {ranges: [{gpa: [0x100000000, 0x1ffffffff], access: ro}, {gpa: [0x0, 0x7fffffff]}]}
devices: [{mdev: 83B8F4F2-509F-382F-3C1E-E6BFE0FA1001, label: v}, {host: "0000:81:00.0"}]
viommu: {model: none, mode: shadow}
needs: {nesting_parent: preferred, pasid: required}
guest_cache_maintenance: true
)");
  const VirtualMachine& vm = request.vms.at(0);
  EXPECT_EQ(vm.memory.ranges, (std::vector<MemoryRange>{{{0, 0x7fffffff}, Access::read_write},
                                                        {{0x100000000, 0x1ffffffff}, Access::read_only}}));
  ASSERT_EQ(vm.devices.size(), 2U);
  EXPECT_EQ(vm.devices[0].host, DeviceIndex(2));
  EXPECT_EQ(vm.devices[1].mdev, "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001");
  EXPECT_EQ(vm.needs.nest_parent, Need::preferred);
  EXPECT_EQ(vm.needs.pasid, Need::required);
  EXPECT_TRUE(vm.guest_cache_maintenance);
}

TEST(Load, ReadsAPolicy) {
  const Policy policy = request_of(kHost + kVm + kPolicy).policy;
  EXPECT_EQ(policy.coherency, CoherencyPolicy::strict);
  EXPECT_EQ(policy.hotplug, HotplugPolicy::additive);
  EXPECT_EQ(policy.viommu_fallback, (std::vector<std::string>{"nested", "hybrid", "shadow"}));
  EXPECT_EQ(policy.objectives, (std::array{Objective::hwpts, Objective::ioas, Objective::coherency,
                                           Objective::page_tables, Objective::unneeded_flags}));
  ASSERT_EQ(policy.rules.size(), 4U);
  EXPECT_EQ(policy.rules[0].name, "big-pages");
  EXPECT_EQ(std::get<RequireRule>(policy.rules[0].what).page_size, std::uint64_t{1} << 30);
  EXPECT_EQ(std::get<RequireRule>(policy.rules[0].what).which.host, (std::vector<std::string>{"0000:01:00.0"}));
  EXPECT_EQ(std::get<LimitRule>(policy.rules[1].what).hwpts, 2U);
  EXPECT_EQ(std::get<TogetherRule>(policy.rules[2].what).which.name, (std::vector<std::string>{"audio0", "gpu0"}));
  const auto& separate = std::get<SeparateRule>(policy.rules[3].what);
  ASSERT_EQ(separate.a.device_class.size(), 1U);
  EXPECT_EQ(separate.a.device_class[0].code, 0x020000U);
  EXPECT_EQ(separate.a.device_class[0].mask, 0xff0000U);
  ASSERT_EQ(separate.b.device_class.size(), 2U);
  EXPECT_EQ(separate.b.device_class[1].code, 0x040300U);
  EXPECT_EQ(separate.b.device_class[1].mask, 0xffff00U);
}

TEST(Load, NoPolicyIsTheDefaultPolicy) {
  const Policy policy = request_of(kHost + kVm).policy;
  EXPECT_EQ(policy.coherency, CoherencyPolicy::safe);
  EXPECT_EQ(policy.objectives, Policy{}.objectives);
}

TEST(Load, JsonReadsAsYamlDoes) {
  const std::string json = R"({"apiVersion": "ioplan/v1", "kind": "Host",
 "iommus": [{"id": "dmar0", "driver": "intel", "cap": "0xd2008c40660462", "ecap": 15749338}],
 "devices": [{"id": "0000:01:00.0", "iommu": "dmar0", "group": 12, "name": "caf\u00e9"}]}
---
{"apiVersion": "ioplan/v1", "kind": "VirtualMachine", "name": "a", "memory": {"size": "4GiB"},
 "devices": [{"host": "0000:01:00.0"}]}
)";
  const std::string yaml = R"(apiVersion: ioplan/v1
kind: VirtualMachine
name: a
memory: {size: 4GiB}
devices:
- host: 0000:01:00.0
---
apiVersion: ioplan/v1
kind: Host
iommus:
- {id: dmar0, driver: intel, cap: 0xd2008c40660462, ecap: 0xf050da}
devices: [{id: 0000:01:00.0, iommu: dmar0, group: 12, name: "caf\u00e9"}]
)";
  const Request a = request_of(json);
  const Request b = request_of(yaml);
  EXPECT_EQ(fingerprint(a.host), fingerprint(b.host));
  EXPECT_EQ(a.host.devices.at(0).name, "caf\u00e9");
  EXPECT_EQ(b.host.devices.at(0).name, "caf\u00e9");
  EXPECT_EQ(a.vms.at(0).memory.size, b.vms.at(0).memory.size);
}

TEST(Load, ByteOrderMarksCarriageReturnsAndEmptyDocumentsAreHarmless) {
  std::string dos;
  for (char c : kHost + kVm) dos += c == '\n' ? std::string("\r\n") : std::string(1, c);
  EXPECT_EQ(request_of("\xef\xbb\xbf" + dos).vms.size(), 1U);
  EXPECT_EQ(request_of("# a comment\n---\n---\n" + kHost + kVm + "---\n").vms.size(), 1U);
}

TEST(Load, AVmIsAskedForSeparately) {
  const auto without = load_text("h.yaml", kHost);
  ASSERT_TRUE(without);
  const auto missing = require_vm(*without);
  ASSERT_FALSE(missing);
  EXPECT_EQ(to_text(missing.error()),
            "error: no VirtualMachine document in `h.yaml`\n"
            "help: name a file with a document of `kind: VirtualMachine`");
  EXPECT_TRUE(require_vm(*load_text("t", kHost + kVm)));
}

// ---------------------------------------------------------------- places of facts

TEST(Sources, FindFacts) {
  const auto loaded = load_text("t", kHost + kVm + kPolicy);
  ASSERT_TRUE(loaded);
  const auto at = [&](const char* kind, const char* id, const char* key) {
    return to_text(loaded->sources.find(kind, id, key));
  };
  EXPECT_EQ(at("Host", "dmar0", "ecap"), "t:6:61");
  EXPECT_EQ(at("Host", "smmu3.0", "idr1"), "t:8:53");
  EXPECT_EQ(at("Host", "viommu0", "input_last"), "t:9:85");
  EXPECT_EQ(at("Host", "0000:01:00.0", "group"), "t:13:12");
  EXPECT_EQ(at("Host", "0000:01:00.0", "dma_coherent.source"), "t:19:41");
  EXPECT_EQ(at("Host", "0000:01:00.1", "pasid_bits"), "t:25:5");
  EXPECT_EQ(at("Host", "kernel", "isolated_msi"), "t:4:94");
  EXPECT_EQ(at("Host", "", "name"), "t:3:7");
  EXPECT_EQ(at("VirtualMachine", "train-01", "needs.dirty_tracking"), "t:35:25");
  EXPECT_EQ(at("VirtualMachine", "train-01", "0000:01:00.1"), "t:33:47");
  EXPECT_EQ(at("VirtualMachine", "train-01", "gpu0"), "t:33:11");
  EXPECT_EQ(at("VirtualMachine", "train-01", ""), "t:28:1");
  EXPECT_EQ(at("Policy", "few", "limit.hwpts"), "t:51:32");
  EXPECT_EQ(at("Policy", "", "coherency"), "t:41:12");
  EXPECT_EQ(at("Host", "nobody", "cap"), "");
  EXPECT_EQ(at("VirtualMachine", "nobody", ""), "");
}

// ---------------------------------------------------------------- bad documents: the file as a whole

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ioplan-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return (path_ / name).string();
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::string error_of_files(std::vector<std::string> files) {
  const auto loaded = load(files);
  return loaded ? "no error" : to_text(loaded.error());
}

TEST(BadFile, EachKindHasItsMessage) {
  const TemporaryFolder folder;
  EXPECT_EQ(error_of_files({}),
            "error: no file to read\nhelp: name the files with the Host, VirtualMachine and Policy documents");
  const std::string missing = folder.path() + "/missing.yaml";
  EXPECT_EQ(error_of_files({missing}),
            missing + ": error: cannot open `" + missing + "`: No such file or directory\nhelp: check the path");
  EXPECT_EQ(load(std::vector{missing}).error().errno_value, ENOENT);
  EXPECT_EQ(error_of_files({folder.path()}),
            folder.path() + ": error: `" + folder.path() + "` is a directory\nhelp: name the files in it");
  const std::string empty = folder.file("empty.yaml", "");
  EXPECT_EQ(error_of_files({empty}), empty +
                                         ": error: the file is empty\n"
                                         "help: write a document that starts with `apiVersion: ioplan/v1`");
  const std::string large = folder.file("large.yaml", "x");
  std::filesystem::resize_file(large, (std::uintmax_t{64} << 20) + 1);
  EXPECT_EQ(error_of_files({large}), large +
                                         ": error: the file is larger than 64MiB\n"
                                         "help: split it into several files, or check that it is a document");
  EXPECT_EQ(error_of_files({"/dev/zero"}),
            "/dev/zero: error: the file is larger than 64MiB\n"
            "help: split it into several files, or check that it is a document");
  EXPECT_EQ(error_of_files({"/dev/null"}),
            "/dev/null: error: the file is empty\n"
            "help: write a document that starts with `apiVersion: ioplan/v1`");
}

TEST(BadFile, UnreadableFilesSayWhy) {
  if (::geteuid() == 0) GTEST_SKIP() << "root reads everything";
  const TemporaryFolder folder;
  const std::string secret = folder.file("secret.yaml", kHost);
  ::chmod(secret.c_str(), 0);
  EXPECT_EQ(error_of_files({secret}),
            secret + ": error: cannot open `" + secret + "`: Permission denied\nhelp: check who may read the file");
}

TEST(BadFile, FilesMayBeNamedInAnyOrder) {
  const TemporaryFolder folder;
  const std::string host = folder.file("h.yaml", kHost);
  const std::string vm = folder.file("v.yaml", kVm);
  EXPECT_EQ(error_of_files({host, vm}), "no error");
  EXPECT_EQ(error_of_files({vm, host}), "no error");
  EXPECT_EQ(error_of_files({host, vm, host}),
            host + ":1:1: error: two Host documents; the first is at " + host + ":1:1\nhelp: name one Host");
}

TEST(BadText, IsNamedWithItsPlace) {
  const std::string help = "\nhelp: documents are UTF-8 text, YAML or JSON";
  EXPECT_EQ(error_of(std::string("kind: Host\nna\0me: x\n", 20)),
            "t:2:3: error: not text: byte `0x00` is a control character" + help);
  EXPECT_EQ(error_of("\x7f"
                     "ELF\x02\x01\x01"),
            "t:1:5: error: not text: byte `0x02` is a control character" + help);
  EXPECT_EQ(error_of("kind: \xff\xfe"), "t:1:7: error: not text: byte `0xff` is not UTF-8" + help);
  EXPECT_EQ(error_of("kind: \xed\xa0\x80"), "t:1:7: error: not text: byte `0xed` is not UTF-8" + help);
  EXPECT_EQ(error_of("kind: \xc3"), "t:1:7: error: not text: byte `0xc3` is not UTF-8" + help);
  EXPECT_EQ(error_of(" \n\t\n"),
            "t: error: no document: the file is blank\n"
            "help: write a document that starts with `apiVersion: ioplan/v1`");
}

TEST(BadYaml, AnchorsAliasesAndTagsAreRefused) {
  const std::string bomb = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n";
  EXPECT_EQ(error_of(bomb),
            "t:1:4: error: YAML anchors are not supported\n"
            "help: write the value out where it is meant");
  EXPECT_EQ(error_of("kind: *x\n"), "t:1:7: error: not YAML: the referenced anchor is not defined");
  EXPECT_EQ(error_of("kind: !!binary aGk=\n"),
            "t:1:7: error: YAML tag `tag:yaml.org,2002:binary` is not supported\n"
            "help: leave the tag out");
  EXPECT_EQ(error_of("!host\nkind: Host\n"),
            "t:1:1: error: YAML tag `!host` is not supported\n"
            "help: leave the tag out");
  EXPECT_EQ(error_of("kind: ! Host\n"), "t:1:7: error: YAML tag `!` is not supported\nhelp: leave the tag out");
}

TEST(BadYaml, SyntaxErrorsHaveAPlace) {
  EXPECT_EQ(error_of(", a: b\n"), "t:1:1: error: not YAML: unexpected `,`");
  EXPECT_EQ(error_of("kind: Host\n}\n"), "t:2:1: error: not YAML: illegal flow end");
  EXPECT_EQ(error_of("kind: [Host\n"), "t:2:1: error: not YAML: end of sequence flow not found");
  EXPECT_EQ(error_of("kind: Host\n\tname: x\n"), "t:2:1: error: not YAML: illegal tab when looking for indentation");
  EXPECT_EQ(error_of("? [a, b]\n: c\n"), "t:1:3: error: a key must be a name, not a list or map");
  EXPECT_EQ(error_of(with(kHost, "name: three-drhd", "<<: {name: x}")),
            "t:3:1: error: unknown key `<<` in `Host`\n"
            "help: accepted: `apiVersion`, `kind`, `name`, `kernel`, `iommus`, `devices`, `sources`, `unknown`");
}

TEST(BadJson, SyntaxErrorsHaveAPlace) {
  EXPECT_EQ(error_of("{\"kind\": \"Host\",\n \"name\": \"x"),
            "t:2:10: error: not JSON: invalid string: missing closing quote");
  EXPECT_EQ(error_of("{\"kind\": \"Host\",\n"),
            "t:2:1: error: not JSON: unexpected end of input; expected string literal");
  EXPECT_EQ(error_of("{\"kind\": \"Host\"\n \"name\": 1}"),
            "t:2:2: error: not JSON: unexpected string literal; expected '}'");
  EXPECT_EQ(error_of("{\"kind\": Host}"), "t:1:10: error: not JSON: invalid literal");
  EXPECT_EQ(error_of("{\"a\": 1e999}"), "t:1:7: error: not JSON: number overflow parsing '1e999'");
  EXPECT_EQ(error_of("{\"apiVersion\": \"ioplan/v1\", \"kind\": \"Host\"} x"),
            "t:1:45: error: not JSON: invalid literal");
}

TEST(BadJson, DuplicateKeysAreFound) {
  EXPECT_EQ(error_of("{\"apiVersion\": \"ioplan/v1\", \"kind\": \"Host\",\n \"name\": \"a\", \"name\": \"b\"}"),
            "t:2:15: error: duplicate key `name`; the first is at t:2:2");
}

TEST(BadJson, NumbersAreStrict) {
  const auto text = [](const std::string& group) {
    return "{\"apiVersion\": \"ioplan/v1\", \"kind\": \"Host\",\n\"devices\": [{\"id\": \"a\", \"group\": " + group +
           "}]}";
  };
  EXPECT_EQ(error_of(text("12")), "no error");
  EXPECT_EQ(error_of(text("\"0xc\"")), "no error");
  EXPECT_EQ(error_of(text("1.0")), "t:2:34: error: `group` must be an integer, not `1.0`");
  EXPECT_EQ(error_of(text("-1")), "t:2:34: error: `group` must not be negative: `-1`");
  EXPECT_EQ(error_of(text("4294967296")), "t:2:34: error: `4294967296` in `group` does not fit in 32 bits");
  EXPECT_EQ(error_of(text("true")), "t:2:34: error: `group` must be an integer, not `true`");
  EXPECT_EQ(error_of(text("null")),
            "t:2:34: error: `group` must be an integer, not nothing\n"
            "help: leave the key out when there is nothing to say");
}

TEST(BadDepth, IsRefusedNotFollowed) {
  const std::string message = "error: nested deeper than 64 levels";
  EXPECT_EQ(error_of(std::string(1000, '[')), "t:1:65: " + message);
  EXPECT_EQ(error_of("a: " + std::string(400, '[') + std::string(400, ']')), "t:1:67: " + message);
  for (const char* piece : {"[", "{\"a\":"}) {
    std::string json;
    for (int i = 0; i < 200000; ++i) json += piece;
    EXPECT_NE(error_of(json).find(message), std::string::npos);
  }
  for (const char* piece : {"[", "{a: ", "- ", "? ", "{", "!x ", "&a "}) {
    std::string yaml = "# deep\n";
    for (int i = 0; i < 20000; ++i) yaml += piece;
    EXPECT_NE(error_of(yaml), "no error") << piece;
  }
}

// ---------------------------------------------------------------- bad documents: header

TEST(BadHeader, IsExplained) {
  const std::string start = "\nhelp: start it with `apiVersion: ioplan/v1` and `kind: Host`, for example";
  EXPECT_EQ(error_of("just words\n"), "t:1:1: error: a document must be a map, not a single value" + start);
  EXPECT_EQ(error_of("- a\n"), "t:1:1: error: a document must be a map, not a list" + start);
  EXPECT_EQ(error_of("null\n"), "t:1:1: error: a document must be a map, not a single value" + start);
  EXPECT_EQ(error_of("kind: Host\n"), "t:1:1: error: the document has no `apiVersion`" + start);
  EXPECT_EQ(error_of("apiVersion: ioplan/v2\nkind: Host\n"),
            "t:1:13: error: unknown value `ioplan/v2` of `apiVersion`\nhelp: did you mean `ioplan/v1`?");
  EXPECT_EQ(error_of("apiVersion: apps/v1\nkind: Host\n"),
            "t:1:13: error: unknown value `apps/v1` of `apiVersion`\nhelp: accepted: `ioplan/v1`");
  EXPECT_EQ(error_of("apiVersion: ioplan/v1\n"),
            "t:1:1: error: the document has no `kind`\n"
            "help: accepted: `Host`, `VirtualMachine`, `Policy`, `Plan`");
  EXPECT_EQ(error_of("apiVersion: ioplan/v1\nkind: Hots\n"),
            "t:2:7: error: unknown value `Hots` of `kind`\n"
            "help: did you mean `Host`?");
  EXPECT_EQ(error_of("apiVersion: ioplan/v1\nkind: VirtualMachin\n"),
            "t:2:7: error: unknown value `VirtualMachin` of `kind`\nhelp: did you mean `VirtualMachine`?");
  EXPECT_EQ(error_of("apiVersion: ioplan/v1\nkind: Pod\n"),
            "t:2:7: error: unknown value `Pod` of `kind`\n"
            "help: accepted: `Host`, `VirtualMachine`, `Policy`, `Plan`");
  EXPECT_EQ(error_of("apiVersion: ioplan/v1\nkind: Plan\n"),
            "t:1:1: error: a Plan is not an input here\n"
            "help: name only Host, VirtualMachine and Policy documents");
}

TEST(BadHeader, NumberOfDocuments) {
  EXPECT_EQ(error_of(kVm), "error: no Host document in `t`\nhelp: name a file with a document of `kind: Host`");
  EXPECT_EQ(error_of(kHost + "---\n" + kHost),
            "t:28:1: error: two Host documents; the first is at t:1:1\nhelp: name one Host");
  EXPECT_EQ(error_of(kHost + kPolicy + kPolicy),
            "t:43:1: error: two Policy documents; the first is at t:28:1\nhelp: name one Policy");
  EXPECT_EQ(error_of(kHost + kVm + kVm), "t:38:1: error: two VMs with the name `train-01`; the first is at t:28:1");
}

// ---------------------------------------------------------------- bad documents: Host

TEST(BadHost, Keys) {
  EXPECT_EQ(host_error("numa: 0", "numma: 0"),
            "t:18:5: error: unknown key `numma` in `devices`\nhelp: did you mean `numa`?");
  EXPECT_EQ(host_error("numa: 0", "group: 13"), "t:18:5: error: duplicate key `group`; the first is at t:13:5");
  EXPECT_EQ(host_error("efr2: 0x0", "zzzzzz: 1"),
            "t:7:55: error: unknown key `zzzzzz` in `iommus`\n"
            "help: accepted: `id`, `driver`, `address`, `version`, `efr`, `efr2`, `va_size`, `domains_used`");
  EXPECT_EQ(host_error("cap: 0xd2008c40660462", "efr: 0x0"),
            "t:6:32: error: `efr` says nothing about a unit of driver `intel`\n"
            "help: accepted: `id`, `driver`, `address`, `version`, `cap`, `ecap`, `rwbf_quirk`, `domains_used`");
  EXPECT_EQ(host_error("cap: 0xd2008c40660462", "dma_range: [0, 1]"),
            "t:6:32: error: `dma_range` says nothing about a unit of driver `intel`\n"
            "help: accepted: `id`, `driver`, `address`, `version`, `cap`, `ecap`, `rwbf_quirk`, `domains_used`");
  EXPECT_EQ(host_error("coherent: true", "idr0: 1"),
            "t:8:86: error: unknown key `idr0` in `iommus`\nhelp: write it as a part of `idr`");
  EXPECT_EQ(host_error("id: dmar0, ", ""), "t:6:5: error: `iommus` has no `id`");
  EXPECT_EQ(host_error("driver: intel, ", ""), "t:6:5: error: `iommus` has no `driver`");
  EXPECT_EQ(host_error("driver: intel", "driver: inetl"),
            "t:6:25: error: unknown value `inetl` of `driver`\n"
            "help: did you mean `intel`?");
}

TEST(BadHost, Numbers) {
  EXPECT_EQ(host_error("group: 12", "group: 010"),
            "t:13:12: error: `010` in `group` looks octal, and readers disagree about its value\n"
            "help: write `10` for decimal, or `0x8` if octal was meant");
  EXPECT_EQ(host_error("group: 12", "group: 0o17"),
            "t:13:12: error: `0o17` in `group` looks octal, and readers disagree about its value\n"
            "help: write `17` for decimal, or `0xf` if octal was meant");
  EXPECT_EQ(host_error("group: 12", "group: 089"),
            "t:13:12: error: `089` in `group` looks octal, and readers disagree about its value\nhelp: write `89`");
  EXPECT_EQ(host_error("group: 12", "group: 00"),
            "t:13:12: error: `00` in `group` looks octal, and readers disagree about its value\nhelp: write `0`");
  EXPECT_EQ(host_error("group: 12", "group: -3"), "t:13:12: error: `group` must not be negative: `-3`");
  EXPECT_EQ(host_error("numa: 0", "numa: -1"),
            "t:18:11: error: `numa` must not be negative: `-1`\nhelp: leave `numa` out when the node is not known");
  EXPECT_EQ(host_error("group: 12", "group: [12]"), "t:13:12: error: `group` must be an integer, not a list");
  EXPECT_EQ(host_error("group: 12", "group:"),
            "t:13:5: error: `group` must be an integer, not nothing\n"
            "help: leave the key out when there is nothing to say");
  EXPECT_EQ(host_error("ecap: 0xf050da", "ecap: 0x1f050da00000000000"),
            "t:6:61: error: `0x1f050da00000000000` in `ecap` does not fit in 64 bits");
  EXPECT_EQ(host_error("cap: 0xd2008c40660462", "cap: 99999999999999999999"),
            "t:6:37: error: `99999999999999999999` in `cap` does not fit in 64 bits");
  EXPECT_EQ(host_error("0x0e739d10", "0x10e739d10"), "t:8:53: error: `0x10e739d10` in `idr` does not fit in 32 bits");
  EXPECT_EQ(host_error("idr: [0x0d8ff1ff, 0x0e739d10, 0, 0x1900, 0, 0x75]", "idr: [0, 0, 0, 0, 0, 0, 0]"),
            "t:8:40: error: `idr` must be a list of 1 to 6 words");
  EXPECT_EQ(host_error("vendor: 0x10de", "vendor: 0x110de"),
            "t:15:13: error: `0x110de` in `vendor` does not fit in 16 bits");
  EXPECT_EQ(host_error("class: 0x030000", "class: 0x1030000"),
            "t:14:12: error: `0x1030000` in `class` does not fit in 24 bits");
  EXPECT_EQ(host_error("class: 0x030000", "class: 0x0300"),
            "t:14:12: error: class `0x0300` has 4 digits of 6\nhelp: write `0x030000`");
}

TEST(BadHost, BooleansAndWords) {
  EXPECT_EQ(host_error("canwbs: false", "canwbs: no"), "t:20:13: error: `canwbs` must be `true` or `false`, not `no`");
  EXPECT_EQ(host_error("canwbs: false", "canwbs: \"false\""),
            "t:20:13: error: `canwbs` must be `true` or `false`, not text\nhelp: leave out the quotes");
  EXPECT_EQ(host_error("source: architecture", "source: firmwar"),
            "t:19:41: error: unknown value `firmwar` of `source`\nhelp: did you mean `firmware`?");
  EXPECT_EQ(host_error("arch: x86_64", "arch: arm64"),
            "t:4:16: error: unknown value `arm64` of `arch`\n"
            "help: accepted: `x86_64`, `aarch64`, `riscv64`, `s390x`");
  EXPECT_EQ(host_error("name: H100", "name: \"\""), "t:17:11: error: `name` is empty");
  EXPECT_EQ(host_error("name: H100", "name: \"a\\nb\""), "t:17:11: error: `name` holds a control character: `a\\x0ab`");
  EXPECT_EQ(host_error("name: H100", "name: {a: b}"), "t:17:11: error: `name` must be text, not a map");
}

TEST(BadHost, Sizes) {
  EXPECT_EQ(host_error("page_size: 4KiB", "page_size: 4096"),
            "t:4:52: error: size `4096` has no unit\nhelp: write `4096GiB`, `4096MiB`, `4096KiB` or `4096B`");
  EXPECT_EQ(host_error("page_size: 4KiB", "page_size: 5KiB"),
            "t:4:52: error: `page_size` must be a power of two of at least 4KiB, not `5KiB`");
  EXPECT_EQ(host_error("size: 16MiB", "size: 15MiB"),
            "t:24:29: error: the size of a BAR is a power of two, not `15MiB`");
  EXPECT_EQ(host_error("index: 0", "index: 6"), "t:24:20: error: a function has BARs 0 to 5, not 6");
}

TEST(BadHost, Ranges) {
  EXPECT_EQ(host_error("[0xfee00000, 0xfeefffff]", "[0xfeefffff, 0xfee00000]"),
            "t:23:17: error: range `[0xfeefffff, 0xfee00000]` is empty or wraps: it ends below its start\n"
            "help: ranges are `[start, last]`, both inclusive");
  EXPECT_EQ(host_error("[0xfee00000, 0xfeefffff]", "[0xfee00000]"),
            "t:23:17: error: `range` must be a range `[start, last]`\n"
            "help: both addresses are inclusive: `[0xfee00000, 0xfeefffff]`");
  EXPECT_EQ(host_error("[0x0, 0xffffffffffffffff]", "[0x1, 0x0]"),
            "t:9:79: error: range `[0x1, 0x0]` is empty or wraps: it ends below its start\n"
            "help: ranges are `[start, last]`, both inclusive");
  EXPECT_EQ(host_error("type: msi}\n", "type: msi}\n      - {range: [0xfeefffff, 0xfef00000], type: msi}\n"),
            "t:24:9: error: reserved region `[0xfeefffff, 0xfef00000]` overlaps the one of the same type at t:23:9");
  EXPECT_EQ(host_error("type: msi}", "type: ms}"),
            "t:23:49: error: unknown value `ms` of `type`\nhelp: did you mean `msi`?");
}

TEST(BadHost, References) {
  EXPECT_EQ(host_error("iommu: dmar0", "iommu: dmar7"),
            "t:12:12: error: device `0000:01:00.0` is behind `dmar7`, which is not among the units\n"
            "help: did you mean `dmar0`?");
  EXPECT_EQ(host_error("iommu: dmar0", "iommu: nothing-like-it"),
            "t:12:12: error: device `0000:01:00.0` is behind `nothing-like-it`, which is not among the units\n"
            "help: accepted: `dmar0`, `ivhd0`, `smmu3.0`, `viommu0`");
  EXPECT_EQ(host_error("id: ivhd0", "id: dmar0"), "t:7:5: error: two units with the id `dmar0`; the first is at t:6:5");
  EXPECT_EQ(host_error("id: \"0000:01:00.1\"", "id: \"0000:01:00.0\""),
            "t:25:5: error: two devices with the id `0000:01:00.0`; the first is at t:11:5");
  EXPECT_EQ(host_error("id: \"0000:01:00.1\"", "id: \"01:00.0\""),
            "t:25:5: error: two devices with the id `01:00.0`; the first is at t:11:5");
}

// ---------------------------------------------------------------- bad documents: VirtualMachine

TEST(BadVm, Keys) {
  EXPECT_EQ(vm_error("dirty_tracking:", "dirty_trackin:"),
            "t:35:9: error: unknown key `dirty_trackin` in `needs`\nhelp: did you mean `dirty_tracking`?");
  EXPECT_EQ(vm_error("dirty_tracking: required", "dirty_tracking: requierd"),
            "t:35:25: error: unknown value `requierd` of `dirty_tracking`\nhelp: did you mean `required`?");
  EXPECT_EQ(vm_error("name: train-01\n", ""), "t:28:1: error: `VirtualMachine` has no `name`");
  EXPECT_EQ(vm_error("dirty_tracking: required", "nest_parent: no, nesting_parent: no"),
            "t:35:42: error: `nesting_parent` is another name for `nest_parent`\nhelp: write one of them");
  EXPECT_EQ(vm_error("type: q35", "type: q36"),
            "t:32:17: error: unknown value `q36` of `type`\nhelp: did you mean `q35`?");
}

TEST(BadVm, Memory) {
  const std::string help = "\nhelp: `size` is laid out as the machine does; `ranges` are all that is mapped";
  const std::string memory = "{size: 512GiB, backing: 1GiB}";
  EXPECT_EQ(vm_error("memory: " + memory + "\n", ""), "t:28:1: error: `VirtualMachine` has no `memory`");
  EXPECT_EQ(vm_error(memory, "{backing: 1GiB}"), "t:31:9: error: `memory` has neither `size` nor `ranges`" + help);
  EXPECT_EQ(vm_error(memory, "{size: 1GiB, ranges: [{gpa: [0, 0xfff]}]}"),
            "t:31:30: error: `memory` has both `size` and `ranges`" + help);
  EXPECT_EQ(vm_error("512GiB", "512"),
            "t:31:16: error: size `512` has no unit\nhelp: write `512GiB`, `512MiB`, `512KiB` or `512B`");
  EXPECT_EQ(vm_error("512GiB", "512G"), "t:31:16: error: size `512G` has no binary unit\nhelp: write `512GiB`");
  EXPECT_EQ(vm_error("512GiB", "512 GB"), "t:31:16: error: size `512 GB` has no binary unit\nhelp: write `512GiB`");
  EXPECT_EQ(vm_error("512GiB", "lots"),
            "t:31:16: error: `lots` is not a size below 16EiB\n"
            "help: write a number and a unit, `512GiB` or `4KiB`");
  EXPECT_EQ(vm_error("512GiB", "16EiB"),
            "t:31:16: error: `16EiB` is not a size below 16EiB\n"
            "help: write a number and a unit, `512GiB` or `4KiB`");
  EXPECT_EQ(vm_error("512GiB", "0B"), "t:31:16: error: `size` of `memory` must not be 0");
  EXPECT_EQ(vm_error("512GiB", "5000B"), "t:31:16: error: `size` `5000B` is not a multiple of 4KiB");
  EXPECT_EQ(vm_error("512GiB", "8PiB"),
            "t:31:16: error: `size` `8PiB` is more than a guest can address\nhelp: at most `4PiB`");
  EXPECT_EQ(vm_error("backing: 1GiB", "backing: 3GiB"),
            "t:31:33: error: `backing` must be a power of two of at least 4KiB, not `3GiB`");
  EXPECT_EQ(vm_error("backing: 1GiB", "backing: 2KiB"),
            "t:31:33: error: `backing` must be a power of two of at least 4KiB, not `2KiB`");
}

TEST(BadVm, MemoryRanges) {
  const auto ranges = [](const std::string& text) {
    return vm_error("{size: 512GiB, backing: 1GiB}", "{ranges: " + text + "}");
  };
  EXPECT_EQ(ranges("[{gpa: [0x1000, 0x8fff]}, {gpa: [0x0, 0x1fff]}]"),
            "t:31:19: error: range `[0x1000, 0x8fff]` overlaps `[0x0, 0x1fff]` at t:31:44");
  EXPECT_EQ(ranges("[{gpa: [0x0, 0x1000]}]"),
            "t:31:25: error: range `[0x0, 0x1000]` is not whole 4KiB pages\n"
            "help: `last` is inclusive: a range ends at an address like `0x7fffffff`");
  EXPECT_EQ(ranges("[{gpa: [0x2000, 0xfff]}]"),
            "t:31:25: error: range `[0x2000, 0xfff]` is empty or wraps: it ends below its start\n"
            "help: ranges are `[start, last]`, both inclusive");
  EXPECT_EQ(ranges("[]"), "t:31:18: error: `ranges` is an empty list");
  EXPECT_EQ(ranges("[{gpa: [0x0, 0xfff], access: rx}]"),
            "t:31:47: error: unknown value `rx` of `access`\nhelp: did you mean `rw`?");
  EXPECT_EQ(ranges("[{gpa: [0xfffffffffffff000, 0xffffffffffffffff]}]"), "no error");
}

TEST(BadVm, Devices) {
  EXPECT_EQ(vm_error("host: \"0000:01:00.1\"", "host: \"0000:01:00.2\""),
            "t:33:54: error: `0000:01:00.2` is not a device of the host\nhelp: did you mean `0000:01:00.0`?");
  EXPECT_EQ(vm_error("host: \"0000:01:00.1\"", "host: \"01:00.1\""),
            "t:33:54: error: `01:00.1` is not a device of the host\nhelp: did you mean `0000:01:00.1`?");
  EXPECT_EQ(vm_error("host: \"0000:01:00.1\"", "host: nothing"),
            "t:33:54: error: `nothing` is not a device of the host\nhelp: list it under `devices` of the Host");
  EXPECT_EQ(vm_error("host: \"0000:01:00.1\"", "host: \"0000:01:00.0\""),
            "t:33:47: error: device `0000:01:00.0` appears twice in VM `train-01`; the first is at t:33:11");
  EXPECT_EQ(vm_error("name: audio0", "name: gpu0"),
            "t:33:47: error: two devices of VM `train-01` with the name `gpu0`; the first is at t:33:11");
  EXPECT_EQ(vm_error("host: \"0000:01:00.1\"", "mdev: 1234"),
            "t:33:54: error: `1234` is not the UUID of a mediated device\n"
            "help: write it as sysfs names it: `83b8f4f2-509f-382f-3c1e-e6bfe0fa1001`");
  const std::string help = "\nhelp: name a host device with `host`, or a mediated device with `mdev`";
  EXPECT_EQ(vm_error("host: \"0000:01:00.1\", ", ""), "t:33:47: error: a device of a VM has no `host`" + help);
  EXPECT_EQ(vm_error("host: \"0000:01:00.1\"", "host: a, mdev: b"),
            "t:33:47: error: a device of a VM has both `host` and `mdev`" + help);
}

std::string second_vm(const std::string& devices) {
  return "---\napiVersion: ioplan/v1\nkind: VirtualMachine\nname: other\nmemory: {size: 4GiB}\ndevices: " + devices +
         "\n";
}

TEST(BadVm, TwoVmsShareNothing) {
  EXPECT_EQ(error_of(kHost + kVm + second_vm("[{host: \"0000:01:00.0\"}]")),
            "t:42:11: error: device `0000:01:00.0` is given to VM `other` and, at t:33:11, to VM `train-01`\n"
            "help: a device belongs to one VM");
  EXPECT_EQ(error_of(kHost + second_vm("[{host: \"0000:01:00.1\"}]") +
                     with(with(kVm, ", {host: \"0000:01:00.1\", name: audio0}", ""), ", p2p: [[gpu0, audio0]]", "")),
            "t:39:11: error: group 12 is split: device `0000:01:00.0` is given to VM `train-01` and, at t:32:11, "
            "device `0000:01:00.1` to VM `other`\n"
            "help: a group is the smallest thing that can be assigned: give its devices to one VM");
  const std::string mdev = "[{mdev: 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001}]";
  EXPECT_EQ(error_of(kHost + second_vm(mdev) + with(second_vm(mdev), "name: other", "name: more")),
            "t:38:11: error: device `83b8f4f2-509f-382f-3c1e-e6bfe0fa1001` is given to VM `more` and, at t:32:11, "
            "to VM `other`\nhelp: a device belongs to one VM");
}

TEST(BadVm, Peers) {
  EXPECT_EQ(vm_error("[[gpu0, audio0]]", "[[gpu0, nic0]]"),
            "t:35:48: error: `nic0` in `p2p` is not a device of VM `train-01`\n"
            "help: accepted: `0000:01:00.0`, `0000:01:00.1`, `H100`, `audio0`, `gpu0`");
  EXPECT_EQ(vm_error("[[gpu0, audio0]]", "[[gpu0, H100]]"), "t:35:41: error: `p2p` pairs `0000:01:00.0` with itself");
  EXPECT_EQ(vm_error("[[gpu0, audio0]]", "[gpu0, audio0]"),
            "t:35:41: error: `p2p` must be a list of pairs\nhelp: write `p2p: [[gpu0, nic0]]`");
}

TEST(BadVm, Viommu) {
  EXPECT_EQ(vm_error("model: none", "model: intel"),
            "t:34:17: error: a guest IOMMU (`intel`) cannot be planned yet\nhelp: use `viommu: {model: none}`");
  EXPECT_EQ(vm_error("model: none", "model: intl"),
            "t:34:17: error: unknown value `intl` of `model`\nhelp: did you mean `intel`?");
  EXPECT_EQ(vm_error("{model: none}", "{model: none, mode: outo}"),
            "t:34:29: error: unknown value `outo` of `mode`\nhelp: did you mean `auto`?");
}

TEST(BadVm, Hotplug) {
  EXPECT_EQ(vm_error("expect: [{host: \"0000:81:00.0\"}", "expect: [{host: \"0000:82:00.0\"}"),
            "t:36:27: error: `0000:82:00.0` is not a device of the host\nhelp: did you mean `0000:81:00.0`?");
  EXPECT_EQ(vm_error("expect: [{host: \"0000:81:00.0\"}", "expect: [{host: \"0000:01:00.0\"}"),
            "t:36:27: error: `0000:01:00.0` is expected, but VM `train-01` has it already");
  EXPECT_EQ(vm_error("{class: network}", "{class: netwrok}"),
            "t:36:52: error: unknown class `netwrok`\nhelp: did you mean `network`?");
  EXPECT_EQ(vm_error("{class: network}", "{class: 0x3}"),
            "t:36:52: error: unknown class `0x3`\nhelp: write 2, 4 or 6 hex digits: `0x03`, `0x0300` or `0x030000`");
}

// ---------------------------------------------------------------- bad documents: Policy

TEST(BadPolicy, Values) {
  EXPECT_EQ(policy_error("coherency: strict", "coherency: strct"),
            "t:41:12: error: unknown value `strct` of `coherency`\nhelp: did you mean `strict`?");
  EXPECT_EQ(policy_error("[hwpts, ioas]", "[hwpts, hwpts]"), "t:45:21: error: `hwpts` appears twice in `objectives`");
  EXPECT_EQ(policy_error("objectives:", "objectivs:"),
            "t:45:1: error: unknown key `objectivs` in `Policy`\nhelp: did you mean `objectives`?");
}

TEST(BadPolicy, Rules) {
  EXPECT_EQ(policy_error("host: \"0000:01:00.0\"", "host: \"0000:01:00.9\""),
            "t:50:63: error: `0000:01:00.9` is not a device of the host\nhelp: did you mean `0000:01:00.0`?");
  EXPECT_EQ(policy_error("{class: network}", "{clas: network}"),
            "t:48:36: error: unknown key `clas` in `a`\nhelp: did you mean `class`?");
  EXPECT_EQ(policy_error("name: [gpu0, audio0]", "name: []"), "t:49:35: error: `name` is an empty list");
  EXPECT_EQ(policy_error("name: pair", "name: few"),
            "t:51:5: error: two rules with the name `few`; the first is at t:49:5");
  EXPECT_EQ(policy_error("limit: {hwpts: 2}", "limit: {hwpts: 0}"),
            "t:51:32: error: a limit of 0 HWPTs lets no device be assigned");
  EXPECT_EQ(policy_error(", limit: {hwpts: 2}", ""),
            "t:51:5: error: rule `few` must say one thing\n"
            "help: exactly one of `separate`, `together`, `require`, `limit`");
  EXPECT_EQ(policy_error("limit: {hwpts: 2}", "limit: {hwpts: 2}, for: {}"),
            "t:51:41: error: `for` belongs to `require`, not to `limit`");
  EXPECT_EQ(policy_error("{page_size: 1GiB}", "{pasid: false}"),
            "t:50:32: error: `require` asks for nothing\n"
            "help: accepted: `page_size`, `dirty_tracking`, `nest_parent`, `pasid`, `enforce_cache_coherency`");
}

TEST(BadWords, StayOnOneShortLine) {
  const std::string error = host_error("driver: intel", "driver: \"" + std::string(5000, 'x') + "\\n\"");
  EXPECT_LT(error.size(), 600U);
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1);
}

// ---------------------------------------------------------------- order

std::string shuffled_map(std::vector<std::string> keys, std::mt19937& random) {
  std::shuffle(keys.begin(), keys.end(), random);
  std::string text = "{";
  for (const std::string& key : keys) text += (text.size() == 1 ? "" : ", ") + key;
  return text + "}";
}

std::string shuffled_list(std::vector<std::vector<std::string>> items, std::mt19937& random) {
  std::shuffle(items.begin(), items.end(), random);
  std::string text = "[";
  for (const auto& item : items) text += (text.size() == 1 ? "" : ", ") + shuffled_map(item, random);
  return text + "]";
}

std::vector<std::string> document(const std::string& kind, std::vector<std::string> keys) {
  keys.insert(keys.end(), {"apiVersion: ioplan/v1", "kind: " + kind});
  return keys;
}

// The same facts, written in another order each time.
std::string shuffled_documents(std::mt19937& random) {
  std::vector<std::vector<std::string>> units;
  std::vector<std::vector<std::string>> devices;
  for (int i = 0; i < 12; ++i) {
    const std::string n = std::to_string(i);
    units.push_back({"id: dmar" + n, "driver: intel", "cap: " + n, "ecap: 0xf050da"});
    devices.push_back({"id: \"0000:0a:0" + n.substr(n.size() - 1) + "." + (i < 10 ? "0" : "1") + "\"",
                       "iommu: dmar" + n, "group: " + n, "label: " + std::string(i % 2 ? "[x, y]" : "[y, x]"),
                       "reserved: " + shuffled_list({{"range: [0, 0xfff]", "type: direct"},
                                                     {"range: [0xfee00000, 0xfeefffff]", "type: msi"}},
                                                    random),
                       "bars: " + shuffled_list({{"index: 0", "size: 4KiB"}, {"index: 2", "size: 1MiB"}}, random)});
  }
  const std::string expect = shuffled_list({{"class: network"}, {"host: \"0000:0a:09.0\""}, {"class: 0x02"}}, random);
  std::vector<std::string> documents = {
      shuffled_map(
          document("Host", {"name: h", "kernel: " + shuffled_map({"arch: x86_64", "la57: true"}, random),
                            "iommus: " + shuffled_list(units, random), "devices: " + shuffled_list(devices, random)}),
          random),
      shuffled_map(
          document("VirtualMachine",
                   {"name: vm2",
                    "memory: {ranges: " +
                        shuffled_list({{"gpa: [0, 0xfff]"}, {"gpa: [0x2000, 0x2fff]", "access: ro"}}, random) + "}",
                    "devices: " + shuffled_list({{"host: \"0000:0a:02.0\"", "name: a"},
                                                 {"host: \"0000:0a:00.1\"", "name: b"},
                                                 {"mdev: 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"}},
                                                random),
                    random() % 2 ? "needs: {p2p: [[a, b]]}" : "needs: {p2p: [[b, a], [a, b]]}",
                    "hotplug: {expect: " + expect + "}"}),
          random),
      shuffled_map(document("VirtualMachine", {"name: vm10", "memory: {size: 4GiB}",
                                               "devices: " + shuffled_list({{"host: \"0000:0a:05.0\""}}, random)}),
                   random),
      shuffled_map(document("Policy", {"rules: " + shuffled_list({{"name: r1", "together: {name: [a, b]}"},
                                                                  {"name: r2", "limit: {hwpts: 3}"},
                                                                  {"name: r10", "limit: {hwpts: 4}"}},
                                                                 random)}),
                   random)};
  std::shuffle(documents.begin(), documents.end(), random);
  std::string text;
  for (const std::string& d : documents) text += "---\n" + d + "\n";
  return text;
}

// Everything that a Request holds and a fingerprint does not, as text.
std::string dump(const Request& request) {
  std::string text = fingerprint(request.host) + request.host.name;
  const auto say = [&](const auto& value) { text += " " + testing::PrintToString(value); };
  for (const Unit& u : request.host.units) say(u.id);
  for (const Device& d : request.host.devices) {
    say(d.id);
    say(d.unit->value);
    say(d.labels);
    for (const Bar& b : d.bars) say(b.index), say(b.size);
  }
  for (const VirtualMachine& vm : request.vms) {
    say(vm.name);
    for (const MemoryRange& m : vm.memory.ranges) say(m.gpa.start), say(m.gpa.last), say(m.access == Access::read_only);
    for (const AssignedDevice& d : vm.devices) say(d.host ? d.host->value : 999U), say(d.mdev), say(d.name);
    say(vm.needs.p2p);
    say(vm.hotplug.hosts);
    say(vm.hotplug.classes);
  }
  for (const PolicyRule& rule : request.policy.rules) say(rule.name), say(rule.what.index());
  return text;
}

TEST(Order, OfKeysItemsAndDocumentsDoesNotMatter) {
  std::mt19937 random(3);
  const std::string expected = dump(request_of(shuffled_documents(random)));
  EXPECT_NE(expected.find("dmar2\" \"dmar3"), std::string::npos) << expected;
  EXPECT_NE(expected.find("\"vm2\""), std::string::npos);
  EXPECT_LT(expected.find("\"vm2\""), expected.find("\"vm10\""));
  for (int i = 0; i < 50; ++i) {
    const std::string text = shuffled_documents(random);
    ASSERT_EQ(dump(request_of(text)), expected) << text;
  }
}

// ---------------------------------------------------------------- plans

Step step(StepKind kind, const std::string& device, const std::string& ioas, const std::string& hwpt) {
  Step s;
  s.kind = kind;
  s.device = device;
  s.ioas = ioas;
  s.hwpt = hwpt;
  return s;
}

Plan full_plan() {
  Plan plan;
  plan.fingerprint = "1b4db7eb-4057-5ddf-91e0-36dec72071f5";
  plan.vms = {"train-01", "yes", "010", "a: b # c"};
  plan.verdict = Verdict::feasible;
  plan.ioas = {{"ioas0",
                "train-01",
                {{0, 0xfedfffff}, {0xfef00000, ~std::uint64_t{0}}},
                {{{0xfee00000, 0xfeefffff}, ReservedType::msi}},
                4096,
                {{{0, 0x7fffffff}, Access::read_write}, {{0x100000000, 0x1ffffffff}, Access::read_only}},
                1U << 30,
                {{0, 0x7fffffff}, {0x100000000, 0x2ffffffff}},
                {"0000:02:00.0"}}};
  PlannedHwpt hwpt;
  hwpt.id = "hwpt0";
  hwpt.ioas = "ioas0";
  hwpt.kind = HwptKind::nest_parent;
  hwpt.allocator = "0000:01:00.0";
  hwpt.flags = kDirtyTracking | kNestParent;
  hwpt.driver = Driver::smmuv3;
  hwpt.stage = 2;
  hwpt.format = PageTableFormat::arm_lpae;
  hwpt.levels = 4;
  hwpt.address_bits = 48;
  hwpt.aperture = {0, 0xffffffffffff};
  hwpt.page_sizes = 0x8000000040201000;
  hwpt.enforce_cache_coherency = true;
  hwpt.page_table_bytes = 123456789;
  hwpt.devices = {"0000:01:00.0", "0000:01:00.1"};
  PlannedHwpt automatic;
  automatic.id = "hwpt1";
  automatic.ioas = "ioas0";
  automatic.allocator = "arm-smmu.7";
  automatic.automatic = true;
  plan.hwpts = {hwpt, automatic};
  plan.kvm = {true, {"0000:01:00.0", "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"}};
  plan.resources = {~std::uint64_t{0}, 1, 2};
  plan.optimality = {2, 2, ProofKind::smt, {"0000:01:00.0"}, "(set-logic QF_LIA)\n(assert \"x\\y\")\n\t; caf\u00e9\n",
                     {}};
  plan.optimality.proved = {true, true, false, false, true};
  plan.objectives.by_objective = {1, 2, 0, 123456789, 3};
  plan.preferences = {"train-01.dirty_tracking"};
  plan.frozen = {{"train-01", "page_sizes", "4KiB 2MiB", {"0000:01:00.0"}}, {"010", "granule", "4KiB", {}}};
  plan.promises = {{"train-01", "", "", {0x200000000, 0x2ffffffff}}, {"train-01", "0000:03:00.0", "hwpt0", {}}};
  plan.unpromised = {{"010", "memory", "lifecycle.promise", "no page"}};
  plan.assumptions = {{"kernel.release", "7.2.13", {}}, {"devices.reserved", "", {"0000:01:00.0"}}};
  plan.conflict = {{"coherency.required", {"0000:01:00.0"}, "`dmar0` cannot block no-snoop: \"ecap\" bit 7 is 0"}};
  plan.fixes = {{"relax-policy", {"coherency"}, "set `coherency: safe`"}, {"drop-need", {}, ""}};
  plan.unknown = {{"iommus.dmar0.ecap", "0x0", "infeasible", "0xf050da", "feasible, 1 HWPT"}};
  plan.steps = {step(StepKind::bind, "0000:01:00.0", "", ""),
                step(StepKind::ioas_alloc, "", "ioas0", ""),
                step(StepKind::allow_iovas, "", "ioas0", ""),
                step(StepKind::hwpt_alloc, "0000:01:00.0", "ioas0", "hwpt0"),
                step(StepKind::attach, "0000:01:00.0", "", "hwpt0"),
                step(StepKind::attach_ioas, "arm-smmu.7", "ioas0", "hwpt1"),
                step(StepKind::map, "", "ioas0", ""),
                step(StepKind::unbind, "0000:01:00.0", "", ""),
                step(StepKind::kvm_file_add, "0000:01:00.0", "", ""),
                step(StepKind::kvm_file_del, "0000:01:00.0", "", ""),
                step(StepKind::replace, "0000:01:00.0", "", "hwpt0"),
                step(StepKind::detach, "0000:01:00.0", "", ""),
                step(StepKind::hwpt_destroy, "", "", "hwpt0"),
                step(StepKind::unmap, "", "ioas0", ""),
                step(StepKind::ioas_destroy, "", "ioas0", "")};
  plan.steps[2].ranges = {{0, 0xfff}, {0x2000, 0x2fff}};
  plan.steps[3].flags = 7;
  plan.steps[6].iova = {0, 0x7fffffff};
  plan.steps[6].writeable = false;
  plan.steps[13].iova = {0x1000, 0x1fff};
  return plan;
}

// Equal documents mean equal plans: to_json writes every field (FixedFields below holds what the names are).
TEST(PlanDocument, SurvivesJsonAndYaml) {
  Plan empty;
  empty.fingerprint = "x";
  Plan undecided = full_plan();
  undecided.verdict = Verdict::undecided;
  undecided.optimality = {};
  for (const Plan& plan : {full_plan(), empty, undecided}) {
    const std::string json = to_json(plan);
    const auto from_json = read_plan("p.json", json);
    ASSERT_TRUE(from_json) << to_text(from_json.error()) << json;
    EXPECT_EQ(to_json(*from_json), json);
    const std::string yaml = to_yaml(plan);
    const auto from_yaml = read_plan("p.yaml", yaml);
    ASSERT_TRUE(from_yaml) << to_text(from_yaml.error()) << yaml;
    EXPECT_EQ(to_json(*from_yaml), json) << yaml;
    EXPECT_EQ(to_yaml(*from_json), yaml);
  }
}

TEST(PlanDocument, EveryFieldReadsBack) {
  const Plan plan = full_plan();
  const auto read = read_plan("p", to_json(plan));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->fingerprint, plan.fingerprint);
  EXPECT_EQ(read->vms, plan.vms);
  EXPECT_EQ(read->ioas, plan.ioas);
  const PlannedHwpt& hwpt = read->hwpts[0];
  EXPECT_EQ(hwpt.kind, HwptKind::nest_parent);
  EXPECT_EQ(hwpt.flags, kDirtyTracking | kNestParent);
  EXPECT_EQ(hwpt.driver, Driver::smmuv3);
  EXPECT_EQ(hwpt.stage, 2U);
  EXPECT_EQ(hwpt.format, PageTableFormat::arm_lpae);
  EXPECT_EQ(hwpt.levels, 4U);
  EXPECT_EQ(hwpt.address_bits, 48U);
  EXPECT_EQ(hwpt.aperture, (Range{0, 0xffffffffffff}));
  EXPECT_EQ(hwpt.page_sizes, 0x8000000040201000U);
  EXPECT_TRUE(hwpt.enforce_cache_coherency);
  EXPECT_EQ(hwpt.page_table_bytes, 123456789U);
  EXPECT_EQ(hwpt.devices, plan.hwpts[0].devices);
  EXPECT_TRUE(read->hwpts[1].automatic);
  EXPECT_EQ(read->resources.pinned_bytes, ~std::uint64_t{0});
  EXPECT_EQ(read->optimality.smt2, plan.optimality.smt2);
  EXPECT_EQ(read->optimality.proved, plan.optimality.proved);
  EXPECT_EQ(read->objectives, plan.objectives);
  EXPECT_EQ(read->frozen, plan.frozen);
  EXPECT_EQ(read->promises, plan.promises);
  EXPECT_EQ(read->unpromised, plan.unpromised);
  EXPECT_EQ(read->assumptions, plan.assumptions);
  EXPECT_EQ(read->unknown[0].second_answer, "feasible, 1 HWPT");
  EXPECT_EQ(read->steps, plan.steps);
}

// What other tools rely on, byte for byte.
TEST(PlanDocument, FixedFields) {
  Plan plan;
  plan.fingerprint = "f";
  plan.vms = {"a"};
  plan.unknown = {{"kernel.la57", "0", "feasible", "1", "infeasible"}};
  plan.steps = {step(StepKind::map, "", "ioas0", "")};
  plan.steps[0].iova = {0, 0xfff};
  EXPECT_EQ(to_yaml(plan), R"(apiVersion: ioplan/v1
kind: Plan
host:
  fingerprint: f
vms: [a]
verdict: infeasible
ioas: []
hwpts: []
kvm:
  noncoherent_dma: false
  because: []
resources:
  pinned_bytes: 0
  page_table_bytes: 0
  memlock_bytes: 0
optimality:
  hwpts: 0
  lower_bound: 0
  proof: none
  witness: []
  proved: []
objectives:
  ioas: 0
  hwpts: 0
  coherency: 0
  page_tables: 0
  unneeded_flags: 0
preferences: []
frozen: []
promises: []
unpromised: []
assumptions: []
conflict: []
fixes: []
unknown:
  - fact: kernel.la57
    values: ["0", "1"]
    answers: [feasible, infeasible]
steps:
  - do: map
    ioas: ioas0
    iova: ["0x0", "0xfff"]
    access: rw
)");
  const std::string json = to_json(full_plan());
  for (const char* line :
       {"\"ranges\": [\n        [\n          \"0x0\",\n          \"0xfedfffff\"", "\"alignment\": 4096,",
        "\"type\": \"msi\"", "\"kind\": \"nest-parent\"", "\"format\": \"arm-lpae\"",
        "\"flags\": [\n        \"dirty-tracking\",\n        \"nest-parent\"\n      ]", "\"do\": \"attach-ioas\"",
        "\"proof\": \"smt\"", "\"page_sizes\": [\n        4096,\n"}) {
    EXPECT_NE(json.find(line), std::string::npos) << line;
  }
  EXPECT_EQ(json.back(), '\n');
}

std::string plan_error(const std::string& from, const std::string& to) {
  const auto plan = read_plan("p", with(to_yaml(full_plan()), from, to));
  return plan ? "no error" : to_text(plan.error());
}

TEST(BadPlan, IsExplained) {
  EXPECT_EQ(plan_error("verdict: feasible", "verdict: maybe"),
            "p:6:10: error: unknown value `maybe` of `verdict`\nhelp: accepted: `feasible`, `infeasible`, `undecided`");
  EXPECT_EQ(plan_error("verdict: feasible\n", ""), "p:1:1: error: `Plan` has no `verdict`");
  EXPECT_EQ(plan_error("verdict: feasible", "verdict: feasible\nextra: 1"),
            "p:7:1: error: unknown key `extra` in `Plan`\n"
            "help: accepted: `apiVersion`, `kind`, `host`, `backend`, `vms`, `verdict`, `ioas`, `hwpts`, `kvm`, `resources`, "
            "`optimality`, `objectives`, `preferences`, `frozen`, `promises`, `unpromised`, `assumptions`, `conflict`, `fixes`, `unknown`, `steps`");
  EXPECT_EQ(plan_error("do: bind\n    device:", "do: bind\n    hwpt:"), "p:123:5: error: `steps` has no `device`");
  EXPECT_EQ(plan_error("proof: smt", "proof: none"), "p:68:3: error: `smt2` is there exactly when `proof` is `smt`");
  const auto host = read_plan("h", kHost);
  ASSERT_FALSE(host);
  EXPECT_EQ(to_text(host.error()), "h:2:7: error: a Host is not a Plan\nhelp: `ioplan plan -o json` prints a Plan");
  const auto two = read_plan("p", to_yaml(full_plan()) + kVm);
  ASSERT_FALSE(two);
  EXPECT_EQ(two.error().message, "a file with a Plan holds one document");
}

// ---------------------------------------------------------------- robustness

std::string mutated(std::string text, std::mt19937& random) {
  static const std::string alphabet = "{}[]:,\"'-&*!|>#%@`? \n\t0x9aZ\\\xff\x80\xc3";
  for (std::size_t n = 1 + random() % 6; n > 0 && !text.empty(); --n) {
    const std::size_t at = random() % text.size();
    switch (random() % 5) {
      case 0:
        text[at] = static_cast<char>(random() % 256);
        break;
      case 1:
        text.erase(at, 1 + random() % 8);
        break;
      case 2:
        text.insert(at, 1, alphabet[random() % alphabet.size()]);
        break;
      case 3:
        text.insert(at, text.substr(random() % text.size(), random() % 40));
        break;
      default:
        text.resize(at);
        break;
    }
  }
  return text;
}

// How many of the readers accept `text`; those that do not say why on one line.
std::size_t read_both_ways(const std::string& text) {
  const auto loaded = load_text("m", text);
  const auto plan = read_plan("m", text);
  for (const std::string& message :
       {loaded ? "accepted" : loaded.error().message, plan ? "accepted" : plan.error().message}) {
    EXPECT_FALSE(message.empty());
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  return static_cast<std::size_t>(loaded.has_value()) + static_cast<std::size_t>(plan.has_value());
}

// Anything may come out but a crash or an exception; an error has a message of one line.
TEST(Robustness, MutatedDocumentsNeverCrash) {
  std::mt19937 random(20260807);
  const std::string json_host = R"({"apiVersion": "ioplan/v1", "kind": "Host", "iommus": [{"id": "d\u00e90", "driver":
 "smmuv3", "idr": ["0x1", 2, 3], "httu": 2}], "devices": [{"id": "0000:01:00.0", "group": 1, "label": ["a", "b\n"],
 "reserved": [{"range": ["0x0", "0xfff"], "type": "direct"}]}]})";
  const std::vector<std::string> seeds = {kHost + kVm + kPolicy, json_host, to_json(full_plan()), to_yaml(full_plan())};
  std::size_t accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::string text = mutated(seeds[static_cast<std::size_t>(i) % seeds.size()], random);
    ASSERT_NO_THROW(accepted += read_both_ways(text)) << text;
  }
  EXPECT_GT(accepted, 10U) << "the mutations are too wild to reach the inside of the reader";
}

// Time and memory stay in proportion to the text.
TEST(Robustness, LongTextsAreReadOnce) {
  std::string text = "apiVersion: ioplan/v1\nkind: Host\ndevices:\n";
  for (int i = 0; i < 20000; ++i) text += "- {id: d" + std::to_string(i) + "}\n";
  EXPECT_EQ(request_of(text).host.devices.size(), 20000U);
  EXPECT_EQ(error_of(text + "- {id: d7}\n").substr(0, 60),
            "t:20004:3: error: two devices with the id `d7`; the first is");
  EXPECT_EQ(error_of("name: " + std::string(1 << 20, '[')), "t:1:4103: error: more than 4096 brackets are left open");
  EXPECT_NE(error_of("a: \"" + std::string(1 << 20, 'x')), "no error");
}

}  // namespace
}  // namespace ioplan

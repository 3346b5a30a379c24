// The commands behind app.cc, one function each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/app.h"
#include "cli/host_output.h"
#include "engine/base/error.h"
#include "engine/model/plan.h"

namespace ioplan::cli {

inline Outcome bad_input(const Error& error) { return {kBadInput, "", to_text(error) + "\n"}; }

struct PlanArguments {
  std::vector<std::string> files;
  Format format = Format::text;
  bool symbolic = false;
  bool compare = false;
  std::string smt2_file;
  KernelInterface interface = KernelInterface::iommufd;
};
Outcome plan_command(const PlanArguments& arguments);

struct CheckArguments {
  std::string plan;
  std::vector<std::string> files;
  Format format = Format::text;
};
Outcome check_command(const CheckArguments& arguments);

struct ApplyArguments {
  std::string plan;
  std::string backend;
  bool dry_run = false;
  bool hold = false;           // keep what the kernel holds until a signal
  std::optional<int> iommu_descriptor;          // /dev/iommu, inherited
  std::vector<std::string> device_descriptors;  // "DEVICE=N": VFIO cdevs, inherited
  std::string accounting = "per-user";          // whose locked memory is counted: per-user, per-process
  std::uint64_t fail_nth = 0;  // of the simulator's operations that can fail; 0: none
  std::vector<std::string> files;
  Format format = Format::text;
};
Outcome apply_command(const ApplyArguments& arguments);

struct ExplainArguments {
  std::string plan;
  std::string device, hwpt;  // of why-not; empty: explain the whole plan
  std::vector<std::string> files;
};
Outcome explain_command(const ExplainArguments& arguments);

struct RulesArguments {
  std::string name;  // empty: list all
  Format format = Format::text;
};
Outcome rules_command(const RulesArguments& arguments);

struct ScanArguments {
  std::string root = "/";            // a directory, or a capture
  std::string capture;               // where to keep what was read; empty: nowhere
  bool names = false;                // the machine's own name too
  bool iommufd = false;              // ask the kernel for what sysfs does not show
  std::optional<HostOutput> output;  // absent: YAML on stdout, nothing with a capture
};
Outcome scan_command(const ScanArguments& arguments);

struct ImportArguments {
  std::vector<std::string> dmesg, lspci, groups, reserved, libvirt_nodedev;  // files; `-`: standard input
  HostOutput output;
};
Outcome import_command(const ImportArguments& arguments);

struct HostArguments {
  std::vector<std::string> files;  // one to show, two to compare: Host documents or captures
  Format format = Format::text;
};
Outcome host_command(const HostArguments& arguments);

}  // namespace ioplan::cli

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
#include "engine/model/request.h"

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
  std::uint64_t fail_nth = 0;  // of the simulator's operations that can fail (of those that `to` needs); 0: none
  std::vector<std::string> to;  // layouts to go on to, one after another; sim, iommufd
  std::vector<std::string> files;
  Format format = Format::text;
};
Outcome apply_command(const ApplyArguments& arguments);

struct HotplugArguments {
  std::string plan;
  std::string vm;
  std::vector<std::string> add, remove;
  std::vector<std::string> memory;    // "+64GiB" or "0x100000000-0x1ffffffff"
  std::optional<HotplugPolicy> mode;  // absent: the policy's
  std::string plan_file;              // where to write the next plan; empty: nowhere
  std::vector<std::string> files;
  Format format = Format::text;
};
Outcome hotplug_command(const HotplugArguments& arguments);

struct HeadroomArguments {
  std::string plan;
  std::string vm;
  std::vector<std::string> files;
  Format format = Format::text;
};
Outcome headroom_command(const HeadroomArguments& arguments);

struct MigrateArguments {
  std::string plan;
  std::vector<std::string> to;  // Host documents
  std::vector<std::string> files;
  Format format = Format::text;
};
Outcome migrate_command(const MigrateArguments& arguments);

struct DiffArguments {
  std::string before, after;
  std::vector<std::string> files;
  Format format = Format::text;
};
Outcome diff_command(const DiffArguments& arguments);

struct ObserveArguments {
  std::string plan;
  std::string running;  // what the simulated host runs; empty: the plan
  std::string backend;
  std::vector<std::string> files;
  Format format = Format::text;
};
Outcome observe_command(const ObserveArguments& arguments);

// A layout goes on in the interface that it runs in. Errors: the plan in `path` is for the other one.
Result<void> same_interface(const Plan& running, const Plan& next, const std::string& path);

// A plan that is running on the request's host. Errors: those of the document; another host or VM; not feasible.
Result<Plan> running_plan(const std::string& path, const Request& request);

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

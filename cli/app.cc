#include "cli/app.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "cli/commands.h"
#include "engine/base/text.h"

namespace ioplan::cli {

namespace {

const std::map<std::string, Format> kFormats = {{"text", Format::text}, {"json", Format::json}, {"yaml", Format::yaml}};

void add_format(CLI::App& command, Format& format) {
  command
      .add_option_function<std::string>("-o,--output", [&format](const std::string& name) { format = kFormats.at(name); },
                                        "text, json or yaml")
      ->check(CLI::IsMember({"text", "json", "yaml"}).description(""))
      ->default_str("text")
      ->type_name("FORMAT");
}

// A format, or a file to write whose ending says the format.
HostOutput host_output(const std::string& word) {
  if (const auto format = kFormats.find(word); format != kFormats.end()) return {format->second, {}};
  return {word.ends_with(".json") ? Format::json : word.ends_with(".txt") ? Format::text : Format::yaml, word};
}

void add_host_output(CLI::App& command, std::optional<HostOutput>& output) {
  command
      .add_option_function<std::string>("-o,--output", [&output](const std::string& word) { output = host_output(word); },
                                        "yaml, json or text on stdout; or a file: .yaml, .json or .txt")
      ->check([](const std::string& word) {
        const bool known = kFormats.contains(word) || word.ends_with(".yaml") || word.ends_with(".yml") ||
                           word.ends_with(".json") || word.ends_with(".txt");
        return known ? std::string() : "`" + word + "` is no format and ends in none of .yaml, .json, .txt";
      })
      ->default_str("yaml")
      ->type_name("FORMAT|FILE");
}

// CLI11's words in the style of our own errors.
std::string usage_error(std::string message, const std::string& command) {
  if (message.size() > 1 && std::isupper(static_cast<unsigned char>(message[1])) == 0) {  // but `FILE is required`
    message[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(message[0])));
  }
  return "error: " + message + "\nhelp: `ioplan " + command + (command.empty() ? "" : " ") + "--help` shows how\n";
}

class Commands {
 public:
  Commands() : app_("ioplan plans IOMMU page tables (HWPTs) for VM device passthrough: the fewest that work, and proof.", "ioplan") {
    app_.require_subcommand(1);
    app_.set_version_flag("--version", "ioplan 0.1.0");
    app_.failure_message([](const CLI::App* app, const CLI::Error& error) {
      const auto chosen = app->get_subcommands();
      return usage_error(error.what(), chosen.empty() ? "" : chosen[0]->get_name());
    });
    app_.footer("Exit: 0 yes, 1 no, 2 usage or bad input, 3 undecided, 4 failed and rolled back, 5 rollback incomplete,\n"
                "70 internal. `ioplan COMMAND --help` has examples.");
    add_plan();
    add_check();
    add_apply();
    add_hotplug();
    add_headroom();
    add_migrate();
    add_diff();
    add_observe();
    add_explain();
    add_rules();
    add_scan();
    add_import();
    add_host();
  }

  Outcome run(std::vector<std::string> arguments) {
    if (!arguments.empty() && !arguments[0].starts_with('-')) {
      if (std::string wrong = no_such_command(arguments[0]); !wrong.empty()) return {kBadInput, "", std::move(wrong)};
    }
    std::ranges::reverse(arguments);  // CLI11 takes the last argument first
    try {
      app_.parse(std::move(arguments));
    } catch (const CLI::Error& error) {
      std::ostringstream out, err;
      const int code = app_.exit(error, out, err);
      return {code == 0 ? kYes : kBadInput, out.str(), err.str()};
    }
    return action_();
  }

 private:
  // Empty when the word is a command.
  std::string no_such_command(const std::string& word) const {
    std::vector<std::string> names;
    for (const CLI::App* command : app_.get_subcommands({})) names.push_back(command->get_name());
    if (std::ranges::find(names, word) != names.end()) return {};
    const std::vector<std::string_view> candidates(names.begin(), names.end());
    const auto near = nearest_name(word, candidates);
    return "error: no command `" + word + "`\nhelp: " +
           (near ? "did you mean `" + std::string(*near) + "`?\n" : "`ioplan --help` lists the commands\n");
  }

  void add_plan() {
    CLI::App* command = app_.add_subcommand("plan", "compute the smallest set of HWPTs for the VMs of the documents");
    command->add_option("FILE", plan_.files, "Host, VirtualMachine and Policy documents, in any order")->required();
    add_format(*command, plan_.format);
    command->add_option_function<std::string>(
               "--backend",
               [this](const std::string& name) {
                 plan_.interface = name == "type1" ? KernelInterface::type1 : KernelInterface::iommufd;
               },
               "iommufd, or type1: what a VFIO container makes of the groups, in the order of joining that is best")
        ->check(CLI::IsMember({"iommufd", "type1"}).description(""))
        ->default_str("iommufd")
        ->type_name("BACKEND");
    command->add_flag("--compare", plan_.compare, "what the kernel, QEMU and type1 make of 1000 seeded orders of plugging");
    command->add_option("--solver", solver_, "cover, or symbolic: let Z3 choose under the asserted rules and compare")
        ->check(CLI::IsMember({"cover", "symbolic"}))
        ->default_str("cover");
    command->add_option("--emit-smt2", plan_.smt2_file, "write `one HWPT fewer` as SMT-LIB 2, which a solver answers unsat");
    command->footer("Example:\n  ioplan plan examples/three-drhd/host.yaml examples/three-drhd/vm.yaml\n"
                    "  ioplan plan host.yaml vm.yaml policy.yaml -o json > plan.json");
    command->callback([this] {
      plan_.symbolic = solver_ == "symbolic";
      action_ = [this] { return plan_command(plan_); };
    });
  }

  void add_check() {
    CLI::App* command = app_.add_subcommand("check", "doubt a written plan: replay it against the documents");
    command->add_option("PLAN", check_.plan, "the plan, as `ioplan plan -o json` printed it")->required();
    command->add_option("FILE", check_.files, "the documents it was made from")->required();
    add_format(*command, check_.format);
    command->footer("Example:\n  ioplan plan host.yaml vm.yaml -o json > plan.json\n  ioplan check plan.json host.yaml vm.yaml");
    command->callback([this] { action_ = [this] { return check_command(check_); }; });
  }

  void add_apply() {
    CLI::App* command = app_.add_subcommand("apply", "carry a plan out, or leave the world as it was");
    command->add_option("PLAN", apply_.plan, "the plan, as `ioplan plan -o json` printed it")->required();
    command->add_option("FILE", apply_.files, "the Host document; with the others that the plan was made from, the judge doubts it first")
        ->required();
    command->add_option("--backend", apply_.backend, "sim: an in-process host with its IOMMUs; iommufd: this machine's, through /dev/iommu; type1: through VFIO containers")
        ->check(CLI::IsMember({"sim", "iommufd", "type1"}))
        ->required();
    command->add_option("--to", apply_.to, "go on to this layout, as `hotplug --plan-out` wrote it; may be given several times")
        ->allow_extra_args(false)
        ->type_name("PLAN");
    command->add_flag("--dry-run", apply_.dry_run, "print the steps and touch nothing");
    command->add_flag("--hold", apply_.hold, "with iommufd or type1: keep the plan applied until SIGINT or SIGTERM (SIGUSR1: compare it with the plan again); else it ends with the command");
    command->add_option("--iommu-fd", apply_.iommu_descriptor, "with iommufd: an open descriptor of /dev/iommu, inherited")->type_name("N");
    command->add_option("--device-fd", apply_.device_descriptors, "with iommufd: an open descriptor of a device of the plan, inherited; for each device that is passed")
        ->type_name("DEVICE=N")
        ->allow_extra_args(false);
    command->add_option("--accounting", apply_.accounting, "with iommufd: whose locked memory counts against RLIMIT_MEMLOCK, all of the user's (per-user) or this process's (per-process)")
        ->check(CLI::IsMember({"per-user", "per-process"}).description(""))
        ->default_str("per-user")
        ->type_name("MODE");
    command->add_option("--fail-nth", apply_.fail_nth, "make the N-th operation of the simulator that can fail do so")
        ->check(CLI::PositiveNumber.description(""))
        ->type_name("N");
    add_format(*command, apply_.format);
    command->footer("Example:\n  ioplan plan host.yaml vm.yaml -o json > plan.json\n"
                    "  ioplan apply plan.json --backend sim host.yaml vm.yaml");
    command->callback([this] { action_ = [this] { return apply_command(apply_); }; });
  }

  void add_hotplug() {
    CLI::App* command = app_.add_subcommand("hotplug", "what may be plugged and unplugged while a VM runs, and in which steps");
    command->add_option("PLAN", hotplug_.plan, "the running layout: a plan, as `plan` or an earlier `hotplug` wrote it")->required();
    command->add_option("FILE", hotplug_.files, "the documents of the host, the VM and the policy")->required();
    command->add_option("--add", hotplug_.add, "a device of the host, or the UUID of a mediated one")->allow_extra_args(false)->type_name("DEVICE");
    command->add_option("--remove", hotplug_.remove, "a device of the VM")->allow_extra_args(false)->type_name("DEVICE");
    command->add_option("--memory", hotplug_.memory, "+SIZE after the memory that is there, or START-LAST")->allow_extra_args(false)->type_name("MEMORY");
    command->add_option("--vm", hotplug_.vm, "which VM, where the plan has several")->type_name("NAME");
    command->add_option("--mode", mode_, "frozen, additive or converge, instead of the policy's `hotplug`")
        ->check(CLI::IsMember({"frozen", "additive", "converge"}));
    command->add_option("--plan-out", hotplug_.plan_file, "write the plan that runs afterwards to this file")->type_name("FILE");
    add_format(*command, hotplug_.format);
    command->footer("Example:\n  ioplan plan host.yaml vm.yaml -o json > plan.json\n"
                    "  ioplan hotplug plan.json --add 0000:b2:00.0 --plan-out next.json host.yaml vm.yaml");
    command->callback([this] {
      const auto mode = std::ranges::find(kHotplugPolicyNames, mode_);
      if (mode != kHotplugPolicyNames.end()) hotplug_.mode = static_cast<HotplugPolicy>(mode - kHotplugPolicyNames.begin());
      action_ = [this] { return hotplug_command(hotplug_); };
    });
  }

  void add_headroom() {
    CLI::App* command = app_.add_subcommand("headroom", "what a running VM can still take: every device of the host, and memory");
    command->add_option("PLAN", headroom_.plan, "the running layout")->required();
    command->add_option("FILE", headroom_.files, "the documents of the host, the VM and the policy")->required();
    command->add_option("--vm", headroom_.vm, "which VM, where the plan has several")->type_name("NAME");
    add_format(*command, headroom_.format);
    command->footer("Example:\n  ioplan headroom plan.json host.yaml vm.yaml");
    command->callback([this] { action_ = [this] { return headroom_command(headroom_); }; });
  }

  void add_migrate() {
    CLI::App* command = app_.add_subcommand("migrate", "on which hosts a running VM can land, best first");
    command->add_option("PLAN", migrate_.plan, "the running layout")->required();
    command->add_option("FILE", migrate_.files, "the documents of the source: host, VM and policy")->required();
    command->add_option("--to", migrate_.to, "a Host document; may be given several times")->allow_extra_args(false)->required()->type_name("HOST");
    add_format(*command, migrate_.format);
    command->footer("Example:\n  ioplan migrate plan.json --to host2.yaml --to host3.yaml host.yaml vm.yaml");
    command->callback([this] { action_ = [this] { return migrate_command(migrate_); }; });
  }

  void add_diff() {
    CLI::App* command = app_.add_subcommand("diff", "what differs between two layouts, and the steps from one to the other");
    command->add_option("PLAN1", diff_.before, "the running layout")->required();
    command->add_option("PLAN2", diff_.after, "the layout to reach")->required();
    command->add_option("FILE", diff_.files, "the documents of the host and the VMs")->required();
    add_format(*command, diff_.format);
    command->footer("Example:\n  ioplan diff plan.json next.json host.yaml vm.yaml");
    command->callback([this] { action_ = [this] { return diff_command(diff_); }; });
  }

  void add_observe() {
    CLI::App* command = app_.add_subcommand("observe", "compare a running layout with the plan: drift");
    command->add_option("PLAN", observe_.plan, "what should run")->required();
    command->add_option("FILE", observe_.files, "the documents of the host and the VMs")->required();
    command->add_option("--backend", observe_.backend, "sim: a simulated host runs the plan, or the one of --running; iommufd or type1: this machine's devices, and who has them open")
        ->check(CLI::IsMember({"sim", "iommufd", "type1"}))
        ->required();
    command->add_option("--running", observe_.running, "with sim: the plan that runs there")->type_name("PLAN");
    add_format(*command, observe_.format);
    command->footer("Example:\n  ioplan observe plan.json --backend sim --running next.json host.yaml vm.yaml");
    command->callback([this] { action_ = [this] { return observe_command(observe_); }; });
  }

  void add_explain() {
    CLI::App* command = app_.add_subcommand("explain", "why each HWPT is what it is, or why a device may not join one");
    command->add_option("PLAN", explain_.plan, "a plan document")->required();
    command->add_option("FILE", words_, "[why-not DEVICE HWPT] and the documents that the plan was made from")->required();
    command->footer("Example:\n  ioplan explain plan.json host.yaml vm.yaml\n"
                    "  ioplan explain plan.json why-not 0000:01:00.0 hwpt1 host.yaml vm.yaml");
    command->callback([this] {
      explain_.files = words_;
      if (words_[0] == "why-not" && words_.size() >= 3) {
        explain_.device = words_[1];
        explain_.hwpt = words_[2];
        explain_.files.erase(explain_.files.begin(), explain_.files.begin() + 3);
      }
      action_ = [this] { return explain_command(explain_); };
    });
  }

  void add_rules() {
    CLI::App* command = app_.add_subcommand("rules", "the law: every rule with its name, its sentence and its source");
    command->add_option("NAME", rules_.name, "explain one rule");
    add_format(*command, rules_.format);
    command->footer("Example:\n  ioplan rules\n  ioplan rules intel.second-stage.levels");
    command->callback([this] { action_ = [this] { return rules_command(rules_); }; });
  }

  void add_scan() {
    CLI::App* command = app_.add_subcommand("scan", "a Host document from what a machine's kernel shows in /sys and /proc");
    command->add_option("--root", scan_.root, "another machine's files: a directory with its sys and proc, or a capture")
        ->default_str("/")
        ->type_name("DIR|FILE.tar");
    command->add_option("--capture", scan_.capture, "keep the files that were read, and no others, in a tar archive")
        ->type_name("FILE.tar");
    command->add_flag("--names", scan_.names, "read the machine's own name too; a capture holds no other");
    command->add_flag("--iommufd", scan_.iommufd, "ask /dev/iommu for registers too, by way of devices that vfio-pci has (root)");
    add_host_output(*command, scan_.output);
    command->footer("Example:\n  ioplan scan -o host.yaml\n  ioplan scan --capture machine.tar\n"
                    "  ioplan scan --root machine.tar -o json");
    command->callback([this] { action_ = [this] { return scan_command(scan_); }; });
  }

  void add_import() {
    CLI::App* command = app_.add_subcommand("import", "a Host document from what people paste into bug reports; every option may be repeated, `-` is stdin");
    const auto text = [&](const char* option, std::vector<std::string>& files, const char* what) {
      command->add_option(option, files, what)->type_name("FILE")->allow_extra_args(false);
    };
    text("--dmesg", import_.dmesg, "a boot log: dmesg, journalctl -k, syslog");
    text("--lspci", import_.lspci, "lspci -nn, -nnk, -vv, -vmm or -t");
    text("--groups", import_.groups, "IOMMU groups as a script, find, ls or tree lists them");
    text("--reserved", import_.reserved, "grep . /sys/kernel/iommu_groups/*/reserved_regions");
    text("--libvirt-nodedev", import_.libvirt_nodedev, "virsh nodedev-dumpxml, one device or many");
    add_host_output(*command, import_output_);
    command->footer("Example:\n  ioplan import --dmesg dmesg.txt --groups groups.txt -o host.yaml\n"
                    "  ssh host dmesg | ioplan import --dmesg - -o text");
    command->callback([this] {
      import_.output = import_output_.value_or(HostOutput{});
      action_ = [this] { return import_command(import_); };
    });
  }

  void add_host() {
    CLI::App* command = app_.add_subcommand("host", "a host explained: units side by side, groups, what cannot be used; or two compared");
    command->add_option("FILE", host_.files, "a Host document or a capture; a second one to compare with")->required()->expected(1, 2);
    add_format(*command, host_.format);
    command->footer("Example:\n  ioplan host examples/three-drhd/host.yaml\n  ioplan host before.yaml after.tar\n"
                    "Two hosts: exit 0 when they are the same, 1 when they differ.");
    command->callback([this] { action_ = [this] { return host_command(host_); }; });
  }

  CLI::App app_;
  PlanArguments plan_;
  CheckArguments check_;
  ApplyArguments apply_;
  HotplugArguments hotplug_;
  HeadroomArguments headroom_;
  MigrateArguments migrate_;
  DiffArguments diff_;
  ObserveArguments observe_;
  ExplainArguments explain_;
  RulesArguments rules_;
  ScanArguments scan_;
  ImportArguments import_;
  std::optional<HostOutput> import_output_;
  HostArguments host_;
  std::string solver_ = "cover";
  std::string mode_;
  std::vector<std::string> words_;
  std::function<Outcome()> action_;
};

}  // namespace

Outcome run(std::vector<std::string> arguments) { return Commands().run(std::move(arguments)); }

}  // namespace ioplan::cli

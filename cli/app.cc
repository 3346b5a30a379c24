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
    command->add_option("--backend", apply_.backend, "sim: an in-process host with its IOMMUs; iommufd: this machine's, through /dev/iommu")
        ->check(CLI::IsMember({"sim", "iommufd", "type1"}))
        ->required();
    command->add_option("--to", apply_.to, "with sim: go on to this layout, as `hotplug --plan-out` wrote it; may be given several times")
        ->allow_extra_args(false)
        ->type_name("PLAN");
    command->add_flag("--dry-run", apply_.dry_run, "print the steps and touch nothing");
    command->add_flag("--hold", apply_.hold, "with iommufd: keep the plan applied until SIGINT or SIGTERM; else it ends with the command");
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
    command->add_option("--backend", observe_.backend, "sim: a simulated host runs the plan, or the one of --running")
        ->check(CLI::IsMember({"sim", "iommufd"}))
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
  std::string solver_ = "cover";
  std::string mode_;
  std::vector<std::string> words_;
  std::function<Outcome()> action_;
};

}  // namespace

Outcome run(std::vector<std::string> arguments) { return Commands().run(std::move(arguments)); }

}  // namespace ioplan::cli

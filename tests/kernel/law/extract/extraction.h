// Which pieces of Linux a recipe takes, found by following names, and how they are written out.
#pragma once

#include <iosfwd>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/kernel/law/extract/pieces.h"

namespace ioplan::extract {

struct Recipe {
  struct Taken {
    std::string name;
    std::string files;  // where it is expected: the `from` line before it
  };
  std::vector<std::string> files;
  std::vector<Taken> taken;
};

// Errors: end the program with a message (see main.cc).
std::string read_file(const std::string& path);
Recipe read_recipe(const std::string& path);

class Extraction {
 public:
  Extraction(Recipe recipe, const std::string& tree);

  // What this C text defines is not taken. A function that it defines keeps the kernel's declaration.
  void leave_to(const std::string& shim);
  void run();
  void write(std::ostream& out) const;

 private:
  void want(const std::string& name);
  bool is_taken(const Piece& piece) const;
  bool keeps_body(const Piece& piece) const;
  bool is_defined(const std::string& function) const;
  void write(std::ostream& out, const Piece& piece) const;

  Recipe recipe_;
  std::vector<Piece> pieces_;  // in the order of the recipe's files
  std::map<std::string, std::vector<std::size_t>> by_name_;
  std::map<std::string, Piece::Kind> shimmed_;
  std::set<std::size_t> wanted_;
  std::vector<std::size_t> open_;  // wanted, and not followed yet
};

[[noreturn]] void fail(const std::string& message);

}  // namespace ioplan::extract

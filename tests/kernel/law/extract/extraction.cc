#include "tests/kernel/law/extract/extraction.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>

namespace ioplan::extract {

void fail(const std::string& message) {
  std::cerr << "extract: " << message << "\n";
  std::exit(1);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path);
  if (!in) fail("`" + path + "` is not there");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Recipe read_recipe(const std::string& path) {
  std::istringstream lines(read_file(path));
  Recipe recipe;
  std::string from;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string verb, word;
    if (!(words >> verb)) continue;
    if (verb != "from" && verb != "take") fail(path + ": no such line: `" + line + "`");
    if (verb == "from") from = line.substr(line.find(verb) + 5);
    while (words >> word) {
      if (verb == "from") {
        recipe.files.push_back(word);
        continue;
      }
      std::ranges::replace(word, ':', ' ');  // `struct:device`
      recipe.taken.push_back({word, from});
    }
  }
  return recipe;
}

Extraction::Extraction(Recipe recipe, const std::string& tree) : recipe_(std::move(recipe)) {
  for (const std::string& file : recipe_.files) {
    for (Piece& piece : pieces_of(file, read_file(tree + "/" + file))) pieces_.push_back(std::move(piece));
  }
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    for (const std::string& name : pieces_[i].names) by_name_[name].push_back(i);
  }
}

void Extraction::leave_to(const std::string& shim) {
  for (const Piece& piece : pieces_of("shim", shim)) {
    if (piece.kind == Piece::forward || piece.kind == Piece::prototype) continue;
    for (const std::string& name : piece.names) shimmed_[name] = piece.kind;
  }
}

void Extraction::run() {
  for (const auto& [name, files] : recipe_.taken) {
    if (!by_name_.contains(name)) fail("`" + name + "` is not in " + files + " any more");
    want(name);
  }
  while (!open_.empty()) {
    const Piece& piece = pieces_[open_.back()];
    open_.pop_back();
    for (const std::string& name : names_in(keeps_body(piece) ? piece.text : piece.text.substr(0, piece.body)))
      want(name);
  }
}

void Extraction::want(const std::string& name) {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return;
  const auto shim = shimmed_.find(name);
  const bool shimmed = shim != shimmed_.end();
  if (shimmed && shim->second != Piece::function) return;
  for (const std::size_t i : found->second) {
    if (shimmed && pieces_[i].kind != Piece::prototype) continue;
    if (wanted_.insert(i).second) open_.push_back(i);
  }
}

bool Extraction::is_taken(const Piece& piece) const {
  return std::ranges::any_of(recipe_.taken, [&](const Recipe::Taken& t) { return t.name == piece.names.front(); });
}

bool Extraction::keeps_body(const Piece& piece) const {
  return piece.kind != Piece::function || piece.is_inline || is_taken(piece);
}

bool Extraction::is_defined(const std::string& function) const {
  return shimmed_.contains(function) ||
         std::ranges::any_of(by_name_.at(function), [&](std::size_t i) { return pieces_[i].kind == Piece::function; });
}

void Extraction::write(std::ostream& out) const {
  out << "/* Cut out of Linux for a test on this machine: GPL-2.0, no part of this project. */\n#pragma once\n";
  for (const std::size_t i : wanted_) write(out, pieces_[i]);
}

void Extraction::write(std::ostream& out, const Piece& piece) const {
  const std::string& name = piece.names.front();
  const std::string ends_here = "{ judge_missing(\"" + name + "\", \"" + piece.file + "\"); }";
  for (const std::string& condition : piece.conditions) out << condition << "\n";
  out << "#line " << piece.line << " \"" << piece.file << "\"\n";
  if (!keeps_body(piece)) {
    out << piece.text.substr(0, piece.body) << ends_here;
  } else if (piece.kind == Piece::prototype && !is_defined(name)) {
    std::string head = piece.text.substr(0, piece.text.size() - 1);
    if (head.starts_with("extern ")) head.erase(0, 7);
    out << "__attribute__((weak)) " << head << ends_here;
  } else {
    out << piece.text;
  }
  for (std::size_t i = 0; i <= piece.conditions.size(); ++i) out << (i == 0 ? "\n" : "#endif\n");
}

}  // namespace ioplan::extract

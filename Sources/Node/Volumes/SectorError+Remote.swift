// SPDX-License-Identifier: Apache-2.0

package import BlocktreeClient
internal import Inodes
package import Sectors
internal import Trust

// From what a sector service answered back to what it threw. The other direction is `SectorError+Status.swift`.

extension SectorError {
  /// What a process of another cluster said. What names no reason, or one that does not fit, is a fault.
  ///
  /// Whoever calls decides before whether the process had an opinion at all: that it could not be reached, does not lead
  /// or does not serve becomes a fault here, too.
  package init(remote error: BlocktreeError) {
    self = Self.known(error) ?? .internalFault("unexpected answer: \(error.code) \(error.reason?.rawValue ?? "")")
  }

  private static func known(_ error: BlocktreeError) -> SectorError? {
    let details = error.metadata
    func file() -> FileID? { details["file"].flatMap { FileID(described: $0) } }
    func version(_ key: String) -> Version? { details[key].flatMap { UInt64($0) }.map { Version($0) } }
    func generation() -> Generation? { details["generation"].flatMap { UInt64($0) }.map { Generation($0) } }
    func path(_ key: String) -> TreePath? { details[key].flatMap { try? TreePath(parsing: $0) } }
    func number(_ key: String) -> Int? { details[key].flatMap { Int($0) } }
    switch error.reason?.rawValue {
    case "CONFLICT":
      guard let file = file(), let current = version("current") else { return nil }
      return .conflict(file, current: current)
    case "PERMISSION_DENIED": return .permissionDenied
    case "NOT_FOUND": return file().map { .notFound($0) }
    case "BAD_SIGNATURE": return file().map { .badSignature($0) }
    case "INVALID_REQUEST": return .invalid(field: details["field"] ?? "")
    case "TOO_LARGE":
      return .tooLarge(details["field"] ?? "", limit: number("limit") ?? 0, found: number("found") ?? 0)
    case "WRONG_GENERATION": return generation().map { .wrongGeneration($0) }
    case "VERSION_GONE":
      guard let file = file(), let gone = version("version"), let current = version("current") else { return nil }
      return .versionGone(file, version: gone, current: current)
    case "DATA_LOSS": return .dataLoss(file(), place: Self.place(details))
    case "NO_SPACE": return .noSpace
    case "BUSY", "TOO_MUCH_AT_ONCE", "TOO_MANY_CONNECTIONS": return .busy
    case "OPERATION_TOO_OLD": return .operationTooOld
    case "SESSION_UNKNOWN": return .sessionUnknown
    case "FENCED": return details["current"].flatMap { UInt64($0) }.map { .fenced(current: $0) }
    case "LAST_PROCESS": return .lastProcess
    case "PROCESS_NEEDED": return path("process").map { .processNeeded($0) }
    case "DELEGATED": return path("directory").map { .delegated($0) }
    case "GENERATION_UNKNOWN": return generation().map { .generationUnknown($0) }
    case "GENERATION_FROZEN": return generation().map { .frozen($0) }
    case "LIMIT_REACHED": return .limitReached(details["field"] ?? "", limit: number("limit") ?? 0)
    default: return nil
    }
  }

  private static func place(_ details: [String: String]) -> DataLossPlace {
    switch details["part"] {
    case "record": return .record
    case "sector", "tree node":
      guard let level = details["level"].flatMap({ Int($0) }), let index = details["index"].flatMap({ UInt64($0) })
      else { return .record }
      return .block(level: level, index: index)
    case let part: return .store(part ?? "")
    }
  }
}

extension FileID {
  /// Takes apart what ``description`` made; nil for anything else.
  fileprivate init?(described text: String) {
    let numbers = text.split(separator: ":", omittingEmptySubsequences: false)
    guard numbers.count == 2, let generation = UInt64(numbers[0]), let inode = UInt64(numbers[1]), generation > 0,
      inode > 0
    else { return nil }
    self.init(generation: Generation(generation), inode: InodeNumber(inode))
  }
}

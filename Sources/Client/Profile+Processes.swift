// SPDX-License-Identifier: Apache-2.0

internal import Trust

extension Profile {
  /// The most processes that a profile lists by itself; what people write into it is not counted.
  package static let addedProcessCountMax = 64

  /// Notes a process to start from, behind those that are there; one with the same path gets these addresses. So the
  /// domain is found when the first process is gone.
  ///
  /// The change is on the disk when this returns. A profile that lists more than ``addedProcessCountMax`` processes, or
  /// a process without addresses, leaves everything as it is.
  ///
  /// - Returns: whether the profile lists the process with these addresses now.
  @discardableResult
  package static func add(_ process: Process, in directory: String) throws(ProfileError) -> Bool {
    guard !process.addresses.isEmpty else { return false }
    // What could not be read again is not written.
    _ = try self.startingPoints([process], in: FileName.description)
    return try self.change(directory) { processes in
      if let index = processes.firstIndex(where: { $0.path == process.path }) {
        processes[index].addresses = process.addresses
        return true
      }
      guard processes.count < Self.addedProcessCountMax else { return false }
      processes.append(process)
      return true
    }
  }

  /// Strikes a process out, unless it is the only one to start from.
  ///
  /// The change is on the disk when this returns.
  ///
  /// - Returns: whether the profile does not list the process now.
  @discardableResult
  package static func removeProcess(at path: String, in directory: String) throws(ProfileError) -> Bool {
    try self.change(directory) { processes in
      let rest = processes.filter { $0.path != path }
      guard !rest.isEmpty else { return false }
      processes = rest
      return true
    }
  }

  private static func change(
    _ directory: String, _ body: (inout [Process]) -> Bool
  ) throws(ProfileError) -> Bool {
    try PrivateFiles.require(directory: directory)
    return try PrivateFiles.withLock(on: directory) { () throws(ProfileError) -> Bool in
      let file = "\(directory)/\(FileName.description)"
      let former = try ProfileDescription(readingFrom: file)
      let listed = former.processes.map { Process(path: $0.path, addresses: $0.addresses) }
      var processes = listed
      let isDone = body(&processes)
      guard processes != listed else { return isDone }
      let text: String
      do {
        text = try ProfileDescription(path: former.path, processes: processes, dns: former.dnsName).encoded()
      } catch {
        throw ProfileError(file, .malformed("\(error)"))
      }
      try PrivateFiles.write(text, to: file)
      try PrivateFiles.synchronize(directory)
      return isDone
    }
  }
}

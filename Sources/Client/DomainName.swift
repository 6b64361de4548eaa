// SPDX-License-Identifier: Apache-2.0

internal import Resolver
internal import Trust

extension Profile {
  /// The domain's name in DNS, if the profile has one. When no process can be reached that the profile names, those in
  /// the domain's root directory are looked for there: by the SRV records of `_blocktree._tcp` below this name, or
  /// else by the addresses of the name itself, at port 7777.
  ///
  /// What DNS says is not trusted. Whoever answers has to be a process of the domain, as at every other address.
  public var dns: String? { self.dnsName?.description }

  /// The same profile with this name of the domain in DNS; nil for none.
  public func finding(by name: String?) throws(ProfileError) -> Profile {
    Profile(
      root: self.root, caller: self.caller, authority: self.authority, startingPoints: self.startingPoints,
      dnsName: try name.map { (name: String) throws(ProfileError) in try Self.dnsName(name, in: "--dns") },
      directory: self.directory)
  }

  /// Writes the domain's name in DNS into a profile directory, or with nil takes it out.
  ///
  /// The change is on the disk when this returns.
  package static func setDNS(_ name: String?, in directory: String) throws(ProfileError) {
    try PrivateFiles.require(directory: directory)
    let file = "\(directory)/\(FileName.description)"
    let name = try name.map { (name: String) throws(ProfileError) in try self.dnsName(name, in: file) }
    try PrivateFiles.withLock(on: directory) { () throws(ProfileError) in
      let former = try ProfileDescription(readingFrom: file)
      let processes = former.processes.map { Process(path: $0.path, addresses: $0.addresses) }
      let text: String
      do {
        text = try ProfileDescription(path: former.path, processes: processes, dns: name).encoded()
      } catch {
        throw ProfileError(file, .malformed("\(error)"))
      }
      try PrivateFiles.write(text, to: file)
      try PrivateFiles.synchronize(directory)
    }
  }

  static func dnsName(_ name: String, in file: String) throws(ProfileError) -> DNSName {
    do {
      return try DNSName(parsing: name)
    } catch {
      throw ProfileError(file, .malformed("\(error)"))
    }
  }
}

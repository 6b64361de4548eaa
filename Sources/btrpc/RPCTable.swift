// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf

/// One call of the schema, with JSON in and out.
package struct RPCMethod: Sendable {
  typealias Next = @Sendable () async throws -> String?
  typealias Answered = @Sendable (String) async throws -> Void

  /// `service/method`.
  package let name: String
  /// The full names of the messages.
  package let request: String
  package let response: String
  package let takesStream: Bool
  package let answersStream: Bool
  let call: @Sendable (Client, @escaping Next, @escaping Answered) async throws -> Void

  init<Request: SwiftProtobuf.Message, Response: SwiftProtobuf.Message>(
    _ method: MethodDescriptor, _: Request.Type, _: Response.Type
  ) {
    self.name = method.fullyQualifiedMethod
    self.request = Request.protoMessageName
    self.response = Response.protoMessageName
    self.takesStream = method.type == .clientStreaming || method.type == .bidirectionalStreaming
    self.answersStream = method.type == .serverStreaming || method.type == .bidirectionalStreaming
    let name = Request.protoMessageName
    self.call = { client, next, answered in
      try await client.call(
        method, Request.self, Response.self,
        next: {
          guard let text = try await next() else { return nil }
          do {
            return try Request(jsonString: text)
          } catch JSONDecodingError.unknownField(let field) {
            throw CommandFailure("\(name) has no field \"\(field)\"")
          } catch {
            throw CommandFailure("this is not a \(name) in JSON (\(error))")
          }
        },
        answered: { try await answered($0.jsonString()) })
    }
  }

  /// As a schema file has it.
  package var signature: String {
    "\(self.name) (\(self.takesStream ? "stream " : "")\(self.request)) returns "
      + "(\(self.answersStream ? "stream " : "")\(self.response))"
  }
}

/// All calls of the schema, and those of every node besides.
package enum RPCTable {
  package static func method(_ name: String) -> RPCMethod? {
    // As in URLs, a slash before it is forgiven.
    let name = name.hasPrefix("/") ? String(name.dropFirst()) : name
    return self.methods.first { $0.name == name }
  }

  package static let methods: [RPCMethod] =
    filesystem + sectors + discovery + relay + cluster + members + general

  private typealias Files = Blocktree_V1_FilesystemService.Method
  private typealias Sectors = Blocktree_V1_SectorService.Method
  private typealias Discovery = Blocktree_V1_DiscoveryService.Method
  private typealias Relay = Blocktree_V1_RelayService.Method
  private typealias Cluster = Blocktree_V1_ClusterService.Method
  private typealias Members = Blocktree_V1_MemberService.Method
  private typealias Snapshots = Blocktree_V1_SnapshotService.Method
  private typealias Repairs = Blocktree_V1_RepairService.Method
  private typealias Backups = Blocktree_V1_BackupService.Method
  private typealias Health = Grpc_Health_V1_Health.Method
  private typealias Reflection = Grpc_Reflection_V1_ServerReflection.Method

  private static let filesystem: [RPCMethod] = [
    RPCMethod(Files.Stat.descriptor, Files.Stat.Input.self, Files.Stat.Output.self),
    RPCMethod(Files.List.descriptor, Files.List.Input.self, Files.List.Output.self),
    RPCMethod(Files.MakeDirectory.descriptor, Files.MakeDirectory.Input.self, Files.MakeDirectory.Output.self),
    RPCMethod(Files.MakeSymbolicLink.descriptor, Files.MakeSymbolicLink.Input.self, Files.MakeSymbolicLink.Output.self),
    RPCMethod(Files.ReadSymbolicLink.descriptor, Files.ReadSymbolicLink.Input.self, Files.ReadSymbolicLink.Output.self),
    RPCMethod(Files.MakeLink.descriptor, Files.MakeLink.Input.self, Files.MakeLink.Output.self),
    RPCMethod(Files.Read.descriptor, Files.Read.Input.self, Files.Read.Output.self),
    RPCMethod(Files.Write.descriptor, Files.Write.Input.self, Files.Write.Output.self),
    RPCMethod(Files.Truncate.descriptor, Files.Truncate.Input.self, Files.Truncate.Output.self),
    RPCMethod(Files.Rename.descriptor, Files.Rename.Input.self, Files.Rename.Output.self),
    RPCMethod(Files.Remove.descriptor, Files.Remove.Input.self, Files.Remove.Output.self),
    RPCMethod(Files.SetAttributes.descriptor, Files.SetAttributes.Input.self, Files.SetAttributes.Output.self),
    RPCMethod(Files.StatFilesystem.descriptor, Files.StatFilesystem.Input.self, Files.StatFilesystem.Output.self),
    RPCMethod(Files.OpenSession.descriptor, Files.OpenSession.Input.self, Files.OpenSession.Output.self),
    RPCMethod(Files.Session.descriptor, Files.Session.Input.self, Files.Session.Output.self),
    RPCMethod(Files.Grant.descriptor, Files.Grant.Input.self, Files.Grant.Output.self),
    RPCMethod(Files.Revoke.descriptor, Files.Revoke.Input.self, Files.Revoke.Output.self),
    RPCMethod(Files.Rekey.descriptor, Files.Rekey.Input.self, Files.Rekey.Output.self),
    RPCMethod(Files.CutOff.descriptor, Files.CutOff.Input.self, Files.CutOff.Output.self),
    RPCMethod(Files.Drain.descriptor, Files.Drain.Input.self, Files.Drain.Output.self),
    RPCMethod(Files.ListTasks.descriptor, Files.ListTasks.Input.self, Files.ListTasks.Output.self),
    RPCMethod(Files.AddCredential.descriptor, Files.AddCredential.Input.self, Files.AddCredential.Output.self),
  ]

  private static let sectors: [RPCMethod] = [
    RPCMethod(Sectors.ReadRecords.descriptor, Sectors.ReadRecords.Input.self, Sectors.ReadRecords.Output.self),
    RPCMethod(Sectors.ReadSectors.descriptor, Sectors.ReadSectors.Input.self, Sectors.ReadSectors.Output.self),
    RPCMethod(
      Sectors.ReadCertificates.descriptor, Sectors.ReadCertificates.Input.self, Sectors.ReadCertificates.Output.self),
    RPCMethod(Sectors.OpenSession.descriptor, Sectors.OpenSession.Input.self, Sectors.OpenSession.Output.self),
    RPCMethod(Sectors.AllocateInodes.descriptor, Sectors.AllocateInodes.Input.self, Sectors.AllocateInodes.Output.self),
    RPCMethod(Sectors.Commit.descriptor, Sectors.Commit.Input.self, Sectors.Commit.Output.self),
    RPCMethod(Sectors.Session.descriptor, Sectors.Session.Input.self, Sectors.Session.Output.self),
    RPCMethod(Sectors.FindOperation.descriptor, Sectors.FindOperation.Input.self, Sectors.FindOperation.Output.self),
    RPCMethod(
      Sectors.AllocateGeneration.descriptor, Sectors.AllocateGeneration.Input.self,
      Sectors.AllocateGeneration.Output.self),
    RPCMethod(
      Sectors.FindCredentials.descriptor, Sectors.FindCredentials.Input.self, Sectors.FindCredentials.Output.self),
    RPCMethod(Sectors.SetFreeze.descriptor, Sectors.SetFreeze.Input.self, Sectors.SetFreeze.Output.self),
    RPCMethod(Sectors.Status.descriptor, Sectors.Status.Input.self, Sectors.Status.Output.self),
  ]

  private static let discovery: [RPCMethod] = [
    RPCMethod(Discovery.Find.descriptor, Discovery.Find.Input.self, Discovery.Find.Output.self),
    RPCMethod(
      Discovery.ReadCredential.descriptor, Discovery.ReadCredential.Input.self, Discovery.ReadCredential.Output.self),
    RPCMethod(Discovery.ListRoutes.descriptor, Discovery.ListRoutes.Input.self, Discovery.ListRoutes.Output.self),
  ]

  private static let relay: [RPCMethod] = [
    RPCMethod(Relay.Call.descriptor, Relay.Call.Input.self, Relay.Call.Output.self),
    RPCMethod(Relay.Send.descriptor, Relay.Send.Input.self, Relay.Send.Output.self),
    RPCMethod(Relay.Attach.descriptor, Relay.Attach.Input.self, Relay.Attach.Output.self),
  ]

  private static let cluster: [RPCMethod] = [
    RPCMethod(Cluster.GetStatus.descriptor, Cluster.GetStatus.Input.self, Cluster.GetStatus.Output.self),
    RPCMethod(
      Cluster.TransferLeadership.descriptor, Cluster.TransferLeadership.Input.self,
      Cluster.TransferLeadership.Output.self),
    RPCMethod(Cluster.Recover.descriptor, Cluster.Recover.Input.self, Cluster.Recover.Output.self),
    RPCMethod(Cluster.Scrub.descriptor, Cluster.Scrub.Input.self, Cluster.Scrub.Output.self),
    RPCMethod(Backups.Backup.descriptor, Backups.Backup.Input.self, Backups.Backup.Output.self),
  ]

  private static let members: [RPCMethod] = [
    RPCMethod(Members.Deliver.descriptor, Members.Deliver.Input.self, Members.Deliver.Output.self),
    RPCMethod(Members.Introduce.descriptor, Members.Introduce.Input.self, Members.Introduce.Output.self),
    RPCMethod(Members.Release.descriptor, Members.Release.Input.self, Members.Release.Output.self),
    RPCMethod(Snapshots.Install.descriptor, Snapshots.Install.Input.self, Snapshots.Install.Output.self),
    RPCMethod(Repairs.FetchBlocks.descriptor, Repairs.FetchBlocks.Input.self, Repairs.FetchBlocks.Output.self),
  ]

  private static let general: [RPCMethod] = [
    RPCMethod(Health.Check.descriptor, Health.Check.Input.self, Health.Check.Output.self),
    RPCMethod(Health.Watch.descriptor, Health.Watch.Input.self, Health.Watch.Output.self),
    RPCMethod(
      Reflection.ServerReflectionInfo.descriptor, Reflection.ServerReflectionInfo.Input.self,
      Reflection.ServerReflectionInfo.Output.self),
  ]
}

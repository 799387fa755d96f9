"""The nested keys of the language that corral honours, by name.

Part of :mod:`specs.compile.support`. They stand here one by one, although their verdict is their
ancestor's: a key that is new in the schema must be looked at before it counts as honoured.
"""

from __future__ import annotations

IN_SERVICE = """
deploy.endpoint_mode deploy.replicas deploy.rollback_config deploy.rollback_config.parallelism
deploy.rollback_config.delay deploy.rollback_config.failure_action
deploy.rollback_config.monitor deploy.rollback_config.max_failure_ratio
deploy.rollback_config.order deploy.update_config deploy.update_config.parallelism
deploy.update_config.delay deploy.update_config.failure_action deploy.update_config.monitor
deploy.update_config.max_failure_ratio deploy.update_config.order deploy.resources
deploy.resources.limits deploy.resources.limits.cpus deploy.resources.limits.memory
deploy.resources.limits.pids deploy.resources.reservations deploy.resources.reservations.cpus
deploy.resources.reservations.memory deploy.restart_policy deploy.restart_policy.condition
deploy.restart_policy.delay deploy.restart_policy.max_attempts deploy.restart_policy.window
deploy.placement deploy.placement.constraints deploy.placement.preferences
deploy.placement.preferences[].spread deploy.placement.max_replicas_per_node
build.context build.dockerfile build.dockerfile_inline build.args build.labels build.no_cache
build.network build.pull build.target build.extra_hosts build.tags
configs[].source configs[].target configs[].uid configs[].gid configs[].mode
depends_on.* depends_on.*.restart depends_on.*.required depends_on.*.condition
devices[].source devices[].target devices[].permissions
healthcheck.disable healthcheck.interval healthcheck.retries healthcheck.test
healthcheck.timeout healthcheck.start_period healthcheck.start_interval
logging.driver logging.options
networks.* networks.*.aliases networks.*.ipv4_address networks.*.priority networks.*.gw_priority
post_start[].command post_start[].user post_start[].privileged post_start[].working_dir
post_start[].environment
pre_stop[].command pre_stop[].user pre_stop[].privileged pre_stop[].working_dir
pre_stop[].environment
ports[].mode ports[].host_ip ports[].target ports[].published ports[].protocol
secrets[].source secrets[].target secrets[].uid secrets[].gid secrets[].mode
ulimits.* ulimits.*.hard ulimits.*.soft
volumes[].type volumes[].source volumes[].target volumes[].read_only volumes[].bind
volumes[].bind.propagation volumes[].bind.create_host_path volumes[].volume
volumes[].volume.nocopy volumes[].volume.subpath volumes[].tmpfs volumes[].tmpfs.size
volumes[].tmpfs.mode
"""

AT_TOP = """
networks.*.name networks.*.ipam.config networks.*.ipam.config[].subnet networks.*.external
networks.*.external.name networks.*.internal networks.*.labels
volumes.*.name volumes.*.external volumes.*.external.name volumes.*.labels
secrets.*.name secrets.*.external.name secrets.*.environment secrets.*.file secrets.*.labels
configs.*.name configs.*.external.name configs.*.content configs.*.environment configs.*.file
configs.*.labels
"""

-- What reads all corrections takes as long as there are corrections: at a million clips, seconds. On Supabase a
-- statement of the Data API may take 8 s, unless its function says otherwise: PostgREST (12.2 and later) applies
-- `statement_timeout` of a function to the whole transaction. The platform itself ends a request after 60 s.
-- https://supabase.com/docs/guides/database/postgres/timeouts
-- A migration that makes one of these anew takes this away from it, and a test says so.
do $$
declare
  patient constant text[] := array[
    'ambara_begin_training', 'ambara_training', 'ambara_status', 'ambara_mend_queue', 'ambara_examine', 'ambara_history'
  ];
  function regprocedure;
begin
  for function in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname = any (patient)
  loop
    execute format('alter function %s set statement_timeout = ''55s''', function);
  end loop;
end
$$;
